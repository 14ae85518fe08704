// The candidates of a request: what the caller says of each, and its row in a bundle.

#pragma once

#include <pybind11/pybind11.h>

#include <cmath>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "directory.hpp"
#include "field.hpp"
#include "json.hpp"

inline void prefetch(const char *const from, const size_t size) {
    for (size_t line = 0; line < size + 63; line += 64) __builtin_prefetch(from + line);
}

struct Candidates {
    std::vector<std::string_view> ids;
    std::vector<double> scores, prices;  // NaN: not said
    std::vector<int64_t> rows;           // in the bundle they were last looked up in; -1: unknown
    bool once = true;                    // each listing stands once, surely
    std::vector<std::optional<int>> pins;  // the places where they must stand, from 1; of none where none has one
    bool pinned = false;                   // some have

    Candidates() = default;

    // Of models.rank.Candidate.
    explicit Candidates(const pybind11::object &candidates) {
        static Field listing_id("listing_id"), score("score"), price("price"), pin("pin");
        kept_ = pybind11::reinterpret_steal<pybind11::object>(PySequence_Tuple(candidates.ptr()));
        if (!kept_) throw pybind11::error_already_set();
        const Py_ssize_t n = PyTuple_GET_SIZE(kept_.ptr());
        const auto number = [](PyObject *const said) { return said == Py_None ? NAN : PyFloat_AsDouble(said); };
        reserve(n);
        for (Py_ssize_t i = 0; i < n; ++i) {
            PyObject *const item = PyTuple_GET_ITEM(kept_.ptr(), i);
            Py_ssize_t size;
            const char *const id = PyUnicode_AsUTF8AndSize(listing_id.of(item), &size);
            if (!id) throw pybind11::error_already_set();
            ids.emplace_back(id, size);
            scores.push_back(number(score.of(item)));
            prices.push_back(number(price.of(item)));
            PyObject *const place = pin.of(item);
            if (place == Py_None) continue;
            pins.resize(n);
            pins[i] = int(PyLong_AsLong(place));
            pinned = true;
        }
        if (PyErr_Occurred()) throw pybind11::error_already_set();
    }

    // As they stand in a request's body, which `kept` holds, as long as each has an id and within the limits. A pin or
    // anything else that is for the longer way is refused like what is wrong: by json::Wrong.
    void read(json::Reader &from, const pybind11::object &kept, const size_t most, const size_t longest) {
        kept_ = kept;
        ids.clear(), scores.clear(), prices.clear();
        reserve(256);
        from.array([&](const size_t number) {
            if (number == most) throw json::Wrong("too many candidates");
            std::string_view id;
            double score = NAN, price = NAN;
            from.object([&](const std::string_view key) {
                if (json::is(key, "listing_id")) {
                    id = from.string();
                } else if (json::is(key, "score")) {
                    score = from.null() ? NAN : from.number();
                } else if (json::is(key, "price")) {
                    price = from.null() ? NAN : from.number();
                    if (price < 0 || price > 1e12) throw json::Wrong("a price out of its range");
                } else if (json::is(key, "pin")) {
                    if (!from.null()) throw json::Wrong("a pinned candidate");
                } else {
                    from.skip();
                }
            });
            if (id.empty() || id.size() > longest) throw json::Wrong("no id, or too long a one");
            ids.push_back(id);
            scores.push_back(score);
            prices.push_back(price);
        });
    }

    // Find their rows, and bring the vectors there, of `size` bytes each, into the cache.
    void look_up(const Directory &directory, const void *const vectors, const size_t size) {
        const size_t n = ids.size();
        rows.resize(n);
        // A set of the hashes, in a table at most half full, behind them.
        size_t room = 16;
        while (room < 2 * n) room *= 2;
        std::vector<uint64_t> table(n + room);
        uint64_t *const hashes = table.data(), *const known = hashes + n;
        directory.rows(n, [&](const size_t i) { return ids[i]; }, rows.data(), hashes);
        once = true;
        for (size_t i = 0; i < n; ++i) {
            if (rows[i] >= 0) prefetch(static_cast<const char *>(vectors) + size_t(rows[i]) * size, size);
            size_t at = hashes[i] & (room - 1);
            while (known[at] && known[at] != hashes[i]) at = (at + 1) & (room - 1);
            once &= !known[at];
            known[at] = hashes[i];
        }
    }

    std::deque<std::string> made;  // ids that have escapes in the body

  private:
    void reserve(const size_t n) { ids.reserve(n), scores.reserve(n), prices.reserve(n); }

    pybind11::object kept_;  // what the ids are views of
};
