// The list of an answer as JSON. Made as objects and then encoded, its 200 listings would cost more than ranking them.
//
// What is written is what `serving.api.RankedListing` says; a test decodes it as such.

#include <pybind11/pybind11.h>

#include <charconv>
#include <cmath>
#include <string>

#include "../models/field.hpp"

namespace py = pybind11;

void write(std::string &out, const long number) {
    char digits[24];
    out.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
}

// With six decimals, as the ranker's curves have: a quarter of what the shortest exact form costs.
void write(std::string &out, const double number) {
    if (!(std::fabs(number) < 1e12)) throw py::value_error("a score beyond all measure");
    const long long whole = std::llround(number * 1e6);
    const unsigned long long size = whole < 0 ? -(unsigned long long)whole : whole;
    char digits[24];
    const auto end = std::to_chars(digits, digits + sizeof digits, size / 1000000).ptr;
    if (whole < 0) out += '-';
    out.append(digits, end);
    char decimals[7] = {'.', '0', '0', '0', '0', '0', '0'};
    unsigned rest = size % 1000000;
    for (int i = 6; rest; --i, rest /= 10) decimals[i] = char('0' + rest % 10);
    out.append(decimals, 7);
}

void write(std::string &out, PyObject *const text) {
    static const char *const hex = "0123456789abcdef";
    Py_ssize_t size;
    const char *const bytes = PyUnicode_AsUTF8AndSize(text, &size);
    if (!bytes) throw py::error_already_set();
    out += '"';
    Py_ssize_t written = 0;
    for (Py_ssize_t i = 0; i < size; ++i) {
        const unsigned char byte = bytes[i];
        if (byte >= 0x20 && byte != '"' && byte != '\\') continue;
        out.append(bytes + written, i - written);
        written = i + 1;
        out += '\\';
        if (byte < 0x20) {
            out += "u00";
            out += hex[byte >> 4];
            out += hex[byte & 15];
        } else {
            out += char(byte);
        }
    }
    out.append(bytes + written, size - written);
    out += '"';
}

// The candidates in `order`, of which the first `given` are the caller's; `scores` and `known` are by candidate.
py::bytes results(const py::tuple &candidates, const py::list &order, const py::object &scores, const py::list &known,
                  const long given) {
    static Field listing_id("listing_id");
    const Py_ssize_t n = PyList_GET_SIZE(order.ptr()), size = PyTuple_GET_SIZE(candidates.ptr());
    if (PyList_GET_SIZE(known.ptr()) != size || (!scores.is_none() && Py_ssize_t(py::len(scores)) != size))
        throw py::value_error("lists of different lengths");
    std::string out;
    out.reserve(n * 96 + 2);
    out += '[';
    for (Py_ssize_t place = 0; place < n; ++place) {
        const long at = PyLong_AsLong(PyList_GET_ITEM(order.ptr(), place));
        if (at < 0 || at >= size) throw py::index_error("no such candidate");
        out += place ? ",{\"listing_id\":" : "{\"listing_id\":";
        write(out, listing_id.of(PyTuple_GET_ITEM(candidates.ptr(), at)));
        out += ",\"position\":";
        write(out, long(place + 1));
        if (at < given) {
            out += ",\"caller_position\":";
            write(out, at + 1);
        }
        if (!scores.is_none()) {
            out += ",\"score\":";
            write(out, PyFloat_AsDouble(PyList_GET_ITEM(scores.ptr(), at)));
        }
        if (PyList_GET_ITEM(known.ptr(), at) == Py_False) out += ",\"known\":false";
        if (at >= given) out += ",\"retrieved\":true";
        out += '}';
    }
    if (PyErr_Occurred()) throw py::error_already_set();
    out += ']';
    return py::bytes(out);
}

PYBIND11_MODULE(_answer, module) { module.def("results", &results); }
