// The lists of a rank request and of its answer, from JSON and to it. As objects in between, 200 listings would cost more
// than ranking them.
//
// What is read is what `serving.api.RankRequest` says, and what is written `serving.api.RankedListing`; tests hold both.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <charconv>
#include <cmath>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../models/candidates.hpp"
#include "../models/json.hpp"

namespace py = pybind11;

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

constexpr size_t CANDIDATES = 1000, ID_BYTES = 256;
constexpr int64_t LATEST = 253402300799999, LONGEST_MS = 10000;  // of serving.api, like those

// A plain request: whose it is, for when, and its candidates.
struct Asked {
    py::object user_id, timestamp = py::none(), candidates;
    int64_t deadline_ms = 50;
};

// The request in the body. None where it asks for more than that, or is wrong: it is read the long way then, which
// says what is.
std::optional<Asked> asked(const py::bytes &body) {
    Asked out;
    auto candidates = std::make_unique<Candidates>();
    bool listed = false;
    try {
        json::Reader from(body, candidates->made);
        std::string_view user;
        from.object([&](const std::string_view key) {
            if (key == "candidates") {
                candidates->read(from, body, CANDIDATES, ID_BYTES);
                listed = true;
            } else if (key == "user_id") {
                user = from.string();
            } else if (key == "timestamp") {
                if (from.null()) {
                    out.timestamp = py::none();
                } else {
                    const int64_t timestamp = from.integer();
                    if (timestamp < 0 || timestamp > LATEST) throw json::Wrong("a timestamp out of its range");
                    out.timestamp = py::int_(timestamp);
                }
            } else if (key == "deadline_ms") {
                out.deadline_ms = from.integer();
                if (out.deadline_ms < 1 || out.deadline_ms > LONGEST_MS)
                    throw json::Wrong("a deadline out of its range");
            } else if (key == "explain") {
                if (!from.literal("false")) throw json::Wrong("not plain");
            } else if (key == "extend" || key == "diversity") {
                if (from.number() != 0) throw json::Wrong("not plain");
            } else if (key != "min_offset" && key != "partition" && key != "market") {
                throw json::Wrong("an unknown field");
            } else if (!from.null()) {
                throw json::Wrong("not plain");
            }
        });
        from.end();
        if (!listed || user.empty() || user.size() > ID_BYTES) return std::nullopt;
        const std::string_view all = body;
        if (!from.ascii() && !py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(all.data(), all.size(), nullptr)))
            throw py::error_already_set();
        out.user_id = py::str(user.data(), user.size());
    } catch (const json::Wrong &) {
        return std::nullopt;
    } catch (const py::error_already_set &error) {
        if (!error.matches(PyExc_UnicodeDecodeError)) throw;
        return std::nullopt;
    }
    out.candidates = py::cast(std::move(candidates));
    return out;
}

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

const char *const PAIRS = "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748"
                          "49505152535455565758596061626364656667686970717273747576777879808182838485868788899091929394959697"
                          "9899";

// With six decimals, as the ranker's curves have: a quarter of what the shortest exact form costs.
void number(Text &out, const double value) {
    if (!(std::fabs(value) < 1e12)) throw py::value_error("a score beyond all measure");
    const long scaled = long(value * 1e6 + (value < 0 ? -.5 : .5)), size = std::labs(scaled);
    if (scaled < 0) out.put('-');
    out.put(size / 1000000);
    unsigned rest = unsigned(size % 1000000);
    char decimals[7] = {'.'};
    for (int i = 5; i > 0; i -= 2, rest /= 100) std::memcpy(decimals + i, PAIRS + 2 * (rest % 100), 2);
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

// The candidates in `order`, of which the first `given` are the caller's; `scores` are by candidate.
py::bytes answered(const Candidates &candidates, const Array<int64_t> &order, const std::optional<Array<float>> &scores,
                  const long given) {
    const long n = long(order.size()), size = long(candidates.ids.size());
    if (long(candidates.rows.size()) != size || (scores && scores->size() != size))
        throw py::value_error("lists of different lengths");
    Text out(n * 100 + REST);
    out.put('[');
    for (long place = 0; place < n; ++place) {
        const long at = order.data()[place];
        if (at < 0 || at >= size) throw py::index_error("no such candidate");
        const std::string_view id = candidates.ids[at];
        out.room(6 * id.size() + REST);
        if (place) out.put(',');
        out.put("{\"listing_id\":");
        string(out, id.data(), id.size());
        out.put(",\"position\":");
        out.put(place + 1);
        if (at < given) {
            out.put(",\"caller_position\":");
            out.put(at + 1);
        }
        if (scores) {
            out.put(",\"score\":");
            number(out, double(scores->data()[at]));
        }
        if (candidates.rows[at] < 0) out.put(",\"known\":false");
        if (at >= given) out.put(",\"retrieved\":true");
        out.put('}');
    }
    out.room(1);
    out.put(']');
    return out.taken();
}

PYBIND11_MODULE(_lists, module) {
    py::module_::import("models._kernel");  // has the type of the candidates
    py::class_<Asked> type(module, "Asked");
    type.def_readonly("user_id", &Asked::user_id)
        .def_readonly("timestamp", &Asked::timestamp)
        .def_readonly("candidates", &Asked::candidates)
        .def_readonly("deadline_ms", &Asked::deadline_ms);
    for (const char *const absent : {"min_offset", "partition", "market"}) type.attr(absent) = py::none();
    for (const char *const off : {"extend", "diversity"}) type.attr(off) = 0;
    type.attr("explain") = false;
    module.def("asked", &asked);
    module.def("answered", &answered);
}
