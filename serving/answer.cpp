// The list of an answer as JSON. Made as objects and then encoded, its 200 listings would cost more than ranking them.
//
// What is written is what `serving.api.RankedListing` says; a test decodes it as such.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <charconv>
#include <cmath>
#include <cstring>
#include <optional>
#include <vector>

#include "../models/field.hpp"

namespace py = pybind11;

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

// Bytes with room behind them.
class Text {
  public:
    explicit Text(const size_t size) : bytes_(size), at_(bytes_.data()) {}

    void room(const size_t more) {
        const size_t used = at_ - bytes_.data();
        if (used + more <= bytes_.size()) return;
        bytes_.resize(2 * (used + more));
        at_ = bytes_.data() + used;
    }
    // The rest asks for no room: whoever calls has made it.
    template <size_t N>
    void put(const char (&text)[N]) {
        std::memcpy(at_, text, N - 1);
        at_ += N - 1;
    }
    void put(const char *const text, const size_t size) {
        std::memcpy(at_, text, size);
        at_ += size;
    }
    void put(const char byte) { *at_++ = byte; }
    void put(const long number) { at_ = std::to_chars(at_, at_ + 20, number).ptr; }
    py::bytes taken() const { return py::bytes(bytes_.data(), at_ - bytes_.data()); }

  private:
    std::vector<char> bytes_;
    char *at_;
};

// With six decimals, as the ranker's curves have: a quarter of what the shortest exact form costs.
void number(Text &out, const double value) {
    if (!(std::fabs(value) < 1e12)) throw py::value_error("a score beyond all measure");
    const long scaled = std::lround(value * 1e6), size = std::labs(scaled);
    if (scaled < 0) out.put('-');
    out.put(size / 1000000);
    char decimals[7] = {'.', '0', '0', '0', '0', '0', '0'};
    unsigned rest = unsigned(size % 1000000);
    for (int i = 6; rest; --i, rest /= 10) decimals[i] = char('0' + rest % 10);
    out.put(decimals, 7);
}

void string(Text &out, const char *const bytes, const Py_ssize_t size) {
    static const char *const hex = "0123456789abcdef";
    out.put('"');
    Py_ssize_t written = 0;
    for (Py_ssize_t i = 0; i < size; ++i) {
        const unsigned char byte = bytes[i];
        if (byte >= 0x20 && byte != '"' && byte != '\\') continue;
        out.put(bytes + written, i - written);
        written = i + 1;
        if (byte < 0x20) {
            out.put("\\u00");
            out.put(hex[byte >> 4]);
            out.put(hex[byte & 15]);
        } else {
            out.put('\\');
            out.put(char(byte));
        }
    }
    out.put(bytes + written, size - written);
    out.put('"');
}

constexpr size_t REST = 160;  // bytes that all but the id of a listing may take

// The candidates in `order`, of which the first `given` are the caller's; `scores` and `known` are by candidate.
py::bytes results(const py::tuple &candidates, const Array<int64_t> &order, const std::optional<Array<float>> &scores,
                  const Array<bool> &known, const long given) {
    static Field listing_id("listing_id");
    const Py_ssize_t n = order.size(), size = PyTuple_GET_SIZE(candidates.ptr());
    if (known.size() != size || (scores && scores->size() != size))
        throw py::value_error("lists of different lengths");
    Text out(n * 100 + REST);
    out.put('[');
    for (Py_ssize_t place = 0; place < n; ++place) {
        const long at = order.data()[place];
        if (at < 0 || at >= size) throw py::index_error("no such candidate");
        Py_ssize_t length;
        const char *const id =
            PyUnicode_AsUTF8AndSize(listing_id.of(PyTuple_GET_ITEM(candidates.ptr(), at)), &length);
        if (!id) throw py::error_already_set();
        out.room(6 * length + REST);
        if (place) out.put(',');
        out.put("{\"listing_id\":");
        string(out, id, length);
        out.put(",\"position\":");
        out.put(long(place + 1));
        if (at < given) {
            out.put(",\"caller_position\":");
            out.put(at + 1);
        }
        if (scores) {
            out.put(",\"score\":");
            number(out, double(scores->data()[at]));
        }
        if (!known.data()[at]) out.put(",\"known\":false");
        if (at >= given) out.put(",\"retrieved\":true");
        out.put('}');
    }
    out.room(1);
    out.put(']');
    return out.taken();
}

PYBIND11_MODULE(_answer, module) { module.def("results", &results); }
