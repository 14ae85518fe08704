// What a rank request computes for every candidate, where numpy's price of a call would be most of the time.
//
// Shapes and meanings are said where these are called: models/features.py and models/ranker.py.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "field.hpp"

namespace py = pybind11;

template <typename T>
using Array = py::array_t<T, py::array::c_style>;
using Floats = Array<float>;
using Doubles = Array<double>;
using Rows = Array<int64_t>;

// The columns of the feature matrix, in the order of models.features.FEATURES; a test compares the names.
enum Column {
    POSITION, CALLER_SCORE, SIMILARITY, CLICKED, LONG_CLICKED, SKIPPED, WISHLISTED, INQUIRED, BOOKED,
    LAST_LONG_CLICK, USER_TYPE, RECENCY, RECENCY_OUTSIDE, FREQUENCY, DISTANCE, PRICE, COLUMNS
};
const char *const NAMES[COLUMNS] = {
    "position", "caller_score", "similarity", "clicked", "long_clicked", "skipped", "wishlisted", "inquired", "booked",
    "last_long_click", "user_type", "recency", "recency_outside", "frequency", "distance", "price"
};
constexpr float NO_SIMILARITY = -1.2f, NO_DISTANCE = -6.f, NO_PRICE = -3.f;
constexpr float FARTHEST = 5.5f, DEAREST = 2.75f;
constexpr float MOST = 1e9f;  // a score beyond it, or none at all, is a broken ranker's

// Rows by listing id. A dictionary of Python's does the same, but each of its lookups waits for memory four times, one
// after the other: table, entry, key, number. Here it is twice, and those of a whole list wait together.
class Directory {
  public:
    explicit Directory(const py::list &ids) : slots_(16) {
        for (Py_ssize_t row = 0; row < PyList_GET_SIZE(ids.ptr()); ++row) set(PyList_GET_ITEM(ids.ptr(), row), row);
    }

    // The row of `id`; -1: none, which is forgotten.
    void set(const py::handle id, const int64_t row) {
        const Key key(id.ptr());
        Slot &slot = find(key);
        if (slot.start < 0) {
            if (2 * ++used_ > slots_.size()) {
                grow();
                return set(id, row);
            }
            slot = {key.hash, -1, int64_t(names_.size())};
            const uint32_t size = uint32_t(key.size);
            names_.append(reinterpret_cast<const char *>(&size), sizeof size).append(key.bytes, key.size);
        }
        slot.row = row;
    }

    int64_t row(PyObject *const id) const { return find(Key(id)).row; }

    // The rows of n ids, and their hashes.
    template <typename Id>
    void rows(const py::ssize_t n, Id id, int64_t *const out, std::vector<Py_hash_t> &hashes) const {
        for (py::ssize_t i = 0; i < n; ++i) {
            hashes[i] = PyObject_Hash(id(i));
            __builtin_prefetch(&slots_[hashes[i] & (slots_.size() - 1)]);
        }
        for (py::ssize_t i = 0; i < n; ++i) {
            const Slot &slot = slots_[hashes[i] & (slots_.size() - 1)];
            if (slot.start >= 0) __builtin_prefetch(names_.data() + slot.start);
        }
        for (py::ssize_t i = 0; i < n; ++i) out[i] = row(id(i));
    }

  private:
    struct Slot {
        Py_hash_t hash = 0;
        int64_t row = -1, start = -1;  // `start`: where the name stands, -1 in an empty slot
    };
    struct Key {
        explicit Key(PyObject *const id) : hash(PyObject_Hash(id)), bytes(PyUnicode_AsUTF8AndSize(id, &size)) {
            if (!bytes) throw py::error_already_set();
        }
        Py_hash_t hash;
        Py_ssize_t size;
        const char *bytes;
    };

    // The key's slot, or the empty one where it belongs.
    const Slot &find(const Key &key) const {
        for (size_t at = key.hash;; ++at) {
            const Slot &slot = slots_[at & (slots_.size() - 1)];
            if (slot.start < 0 || (slot.hash == key.hash && names(slot, key))) return slot;
        }
    }
    Slot &find(const Key &key) { return const_cast<Slot &>(static_cast<const Directory *>(this)->find(key)); }

    bool names(const Slot &slot, const Key &key) const {
        uint32_t size;
        std::memcpy(&size, names_.data() + slot.start, sizeof size);
        return py::ssize_t(size) == key.size &&
               std::memcmp(names_.data() + slot.start + sizeof size, key.bytes, size) == 0;
    }

    void grow() {
        std::vector<Slot> old(2 * slots_.size());
        old.swap(slots_);
        used_ = 0;
        for (const Slot &slot : old) {
            if (slot.start < 0) continue;
            size_t at = slot.hash;
            while (slots_[at & (slots_.size() - 1)].start >= 0) ++at;
            slots_[at & (slots_.size() - 1)] = slot;
            ++used_;
        }
    }

    std::vector<Slot> slots_;  // as many as a power of two, at most half of them used
    std::string names_;        // each after its size
    size_t used_ = 0;
};

// What the caller says of each candidate: its row (-1: unknown), its score and its price (NaN: not said); whether each
// listing surely stands once, and whether any is pinned.
py::tuple gather(const py::object &candidates, const Directory &directory, const Floats &vectors) {
    static Field listing_id("listing_id"), score("score"), price("price"), pin("pin");
    const py::object sequence = py::reinterpret_steal<py::object>(PySequence_Fast(candidates.ptr(), "a sequence"));
    if (!sequence) throw py::error_already_set();
    const Py_ssize_t n = PySequence_Fast_GET_SIZE(sequence.ptr());
    PyObject **const items = PySequence_Fast_ITEMS(sequence.ptr());
    Rows rows(n);
    Doubles scores(n), prices(n);
    const auto number = [](PyObject *const said) { return said == Py_None ? NAN : PyFloat_AsDouble(said); };
    std::vector<Py_hash_t> hashes(n);
    directory.rows(n, [=](const Py_ssize_t i) { return listing_id.of(items[i]); }, rows.mutable_data(), hashes);
    bool pinned = false;
    for (Py_ssize_t i = 0; i < n; ++i) {
        if (rows.data()[i] >= 0) __builtin_prefetch(vectors.data() + rows.data()[i] * vectors.shape(1));
        scores.mutable_data()[i] = number(score.of(items[i]));
        prices.mutable_data()[i] = number(price.of(items[i]));
        pinned |= pin.of(items[i]) != Py_None;
    }
    if (PyErr_Occurred()) throw py::error_already_set();
    std::sort(hashes.begin(), hashes.end());
    const bool once = std::adjacent_find(hashes.begin(), hashes.end()) == hashes.end();
    return py::make_tuple(rows, scores, prices, once, pinned);
}

// The histories, by the first letter of what was done, which all differ.
int history(PyObject *const kind) {
    switch (PyUnicode_READ_CHAR(kind, 0)) {
    case 'c': return CLICKED;
    case 'l': return LONG_CLICKED;
    case 's': return SKIPPED;
    case 'w': return WISHLISTED;
    case 'i': return INQUIRED;
    case 'b': return BOOKED;
    default: return -1;  // a rejection
    }
}

bool same(PyObject *const one, PyObject *const other) {
    return one == other || (one != Py_None && other != Py_None && PyUnicode_Compare(one, other) == 0);
}

// What was done, in tuples of models.history.Done, as unit vectors: the centroid of each history in each market, the
// last long click, and `vector` behind them where it is not None; the column that each is for; and of the actions how
// many there were, the sum of the price ranges known and how many those are, and whether one was a booking.
py::tuple taste(const py::list &tuples, const Floats &vectors, const Directory &directory, const py::list &markets,
                const py::list &ranges, const py::object &vector) {
    static Field kind_of("kind"), listing_id("listing_id"), timestamp("timestamp"), market_of("market");
    struct Group { int column; PyObject *market; };
    const py::ssize_t size = vectors.shape(1);
    std::vector<Group> groups;
    std::vector<double> sums;
    const float *last = nullptr;
    long long when = -1;
    long actions = 0, in_range = 0, priced = 0;
    bool booked = false;
    for (const py::handle &tuple : tuples) {
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple.ptr()); ++i) {
            PyObject *const deed = PyTuple_GET_ITEM(tuple.ptr(), i);
            const int64_t at = directory.row(listing_id.of(deed));
            const int column = history(kind_of.of(deed));
            if (at < 0 || at >= vectors.shape(0) || column < 0) continue;  // a row may have been put since
            const float *const from = vectors.data() + at * size;
            PyObject *market = market_of.of(deed);
            if (market == Py_None) market = PyList_GET_ITEM(markets.ptr(), at);
            size_t group = 0;
            while (group < groups.size() && !(groups[group].column == column && same(groups[group].market, market)))
                ++group;
            if (group == groups.size()) {
                groups.push_back({column, market});
                sums.resize(sums.size() + size, 0.0);
            }
            double *const sum = sums.data() + group * size;
            for (py::ssize_t j = 0; j < size; ++j) sum[j] += from[j];
            if (column == LONG_CLICKED) {
                const long long time = PyLong_AsLongLong(timestamp.of(deed));
                if (time >= when) when = time, last = from;
            } else if (column != SKIPPED) {
                ++actions;
                booked |= column == BOOKED;
                if (at < PyList_GET_SIZE(ranges.ptr())) {
                    const long range = PyLong_AsLong(PyList_GET_ITEM(ranges.ptr(), at));
                    if (range >= 0) in_range += range, ++priced;
                }
            }
        }
    }
    if (PyErr_Occurred()) throw py::error_already_set();
    std::vector<int64_t> columns;
    for (const Group &group : groups) columns.push_back(group.column);
    if (last) {
        columns.push_back(LAST_LONG_CLICK);
        sums.insert(sums.end(), last, last + size);
    }
    if (!vector.is_none()) {
        if (!PyTuple_Check(vector.ptr()) || PyTuple_GET_SIZE(vector.ptr()) != size)
            throw py::value_error("a vector of another space");
        columns.push_back(SIMILARITY);
    }
    Floats queries({py::ssize_t(columns.size()), size});
    float *out = queries.mutable_data();
    for (size_t first = 0; first < sums.size(); first += size, out += size) {
        double square = 0;
        for (py::ssize_t j = 0; j < size; ++j) square += sums[first + j] * sums[first + j];
        const double scale = square > 1e-18 ? 1 / std::sqrt(square) : 0;
        for (py::ssize_t j = 0; j < size; ++j) out[j] = float(sums[first + j] * scale);
    }
    if (!vector.is_none())
        for (py::ssize_t j = 0; j < size; ++j) out[j] = float(PyFloat_AsDouble(PyTuple_GET_ITEM(vector.ptr(), j)));
    if (PyErr_Occurred()) throw py::error_already_set();
    return py::make_tuple(queries, columns, actions, in_range, priced, booked);
}

// So many products are made side by side, in four registers. No sum is split among lanes, so the order of additions,
// and with it every bit, is that of a plain loop. (Registers twice as wide gained nothing measurable.)
constexpr py::ssize_t WIDE = 16;

typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));

void products(const float *const vector, const py::ssize_t size, const float *const turned, float *const out) {
    Four a = {}, b = {}, c = {}, d = {};
    for (py::ssize_t j = 0; j < size; ++j) {
        const Four *const line = reinterpret_cast<const Four *>(turned + j * WIDE);
        a += vector[j] * line[0], b += vector[j] * line[1], c += vector[j] * line[2], d += vector[j] * line[3];
    }
    Four *const to = reinterpret_cast<Four *>(out);
    to[0] = a, to[1] = b, to[2] = c, to[3] = d;
}

// Each candidate's similarity to each query goes to the query's column, which keeps the greatest.
void similarities(const Floats &vectors, const Rows &rows, const Floats &queries, const std::vector<int64_t> &columns,
                  float *const out) {
    const py::ssize_t n = rows.size(), size = vectors.shape(1), count = py::ssize_t(columns.size());
    std::vector<float> turned(size * WIDE), sums(n * WIDE);
    std::vector<char> known(n);  // a listing without a vector is like nothing
    for (py::ssize_t i = 0; i < n; ++i) {
        const float *const vector = vectors.data() + rows.data()[i] * size;
        known[i] = std::any_of(vector, vector + size, [](float value) { return value != 0; });
    }
    for (py::ssize_t first = 0; first < count; first += WIDE) {
        const py::ssize_t wide = std::min(WIDE, count - first);
        // Query by query in memory, so that a candidate's products with all of them lie side by side.
        for (py::ssize_t j = 0; j < size; ++j)
            for (py::ssize_t k = 0; k < WIDE; ++k)
                turned[j * WIDE + k] = k < wide ? queries.data()[(first + k) * size + j] : 0.f;
        for (py::ssize_t i = 0; i < n; ++i)
            products(vectors.data() + rows.data()[i] * size, size, turned.data(), sums.data() + i * WIDE);
        for (py::ssize_t k = 0; k < wide; ++k) {
            float *const greatest = out + columns[first + k] * n;
            for (py::ssize_t i = 0; i < n; ++i)
                if (known[i]) greatest[i] = std::max(greatest[i], sums[i * WIDE + k]);
        }
    }
}

// The caller's scores, standardised within the list; nothing where one is missing, all are equal or too large.
void standardise(const double *const scores, const py::ssize_t n, float *const out) {
    double sum = 0, squares = 0;
    for (py::ssize_t i = 0; i < n; ++i) sum += scores[i];
    const double mean = sum / double(n);
    for (py::ssize_t i = 0; i < n; ++i) squares += (scores[i] - mean) * (scores[i] - mean);
    const double spread = std::sqrt(squares / double(n));
    if (!(spread > 0) || !std::isfinite(spread)) return;
    for (py::ssize_t i = 0; i < n; ++i) out[i] = float((scores[i] - mean) / spread);
}

Floats features(const Floats &vectors, const Floats &log_prices, const Array<int32_t> &types, const Rows &rows,
                const Rows &positions, const Doubles &scores, const Doubles &prices, const Floats &queries,
                const std::vector<int64_t> &columns, const Floats &type_similarities,
                const std::vector<int64_t> &acted, const std::vector<int64_t> &counts, const bool inside,
                const std::vector<int64_t> &shown, const double log_price) {
    const py::ssize_t n = rows.size();
    Floats result({py::ssize_t(COLUMNS), n});
    float *const out = result.mutable_data();
    const auto column = [&](Column which) { return out + which * n; };
    std::fill(out, out + COLUMNS * n, 0.f);
    std::fill(column(SIMILARITY), column(USER_TYPE) + n, NO_SIMILARITY);
    std::fill(column(DISTANCE), column(DISTANCE) + n, NO_DISTANCE);
    std::fill(column(PRICE), column(PRICE) + n, NO_PRICE);
    const int64_t *const row = rows.data();
    const int64_t *const position = positions.data();
    for (py::ssize_t i = 0; i < n; ++i) column(POSITION)[i] = std::log2(float(position[i]));
    standardise(scores.data(), n, column(CALLER_SCORE));
    if (!columns.empty()) similarities(vectors, rows, queries, columns, out);
    if (type_similarities.size() > 0)
        for (py::ssize_t i = 0; i < n; ++i) {
            const int32_t type = types.data()[row[i]];
            if (type >= 0) column(USER_TYPE)[i] = type_similarities.data()[type];
        }
    py::ssize_t last = -1;  // the candidate acted on last, and which of `acted` it is
    size_t newest = 0;
    if (!acted.empty())
        for (py::ssize_t i = 0; i < n; ++i)
            for (size_t k = 0; k < acted.size(); ++k)
                if (row[i] == acted[k]) {
                    column(inside ? RECENCY : RECENCY_OUTSIDE)[i] = float(acted.size() - k);
                    column(FREQUENCY)[i] = float(counts[k]);
                    if (last < 0 || k > newest) last = i, newest = k;
                }
    const auto here = [&](int64_t listing) { return std::find(row, row + n, listing) != row + n; };
    if (last >= 0 && !shown.empty() && std::all_of(shown.begin(), shown.end(), here))
        for (py::ssize_t i = 0; i < n; ++i) {
            const float below = float(position[i] - position[last]);
            const float distance = std::copysign(std::log2(1 + std::fabs(below)), below);
            column(DISTANCE)[i] = std::min(std::max(distance, -FARTHEST), FARTHEST);
        }
    if (std::isfinite(log_price))
        for (py::ssize_t i = 0; i < n; ++i) {
            const double said = prices.data()[i];
            const float known = said > 0 ? float(std::log2(said)) : log_prices.data()[row[i]];
            const float dearer = known - float(log_price);
            if (std::isfinite(dearer)) column(PRICE)[i] = std::min(std::max(dearer, -DEAREST), DEAREST);
        }
    return result;
}

// Calls `take(feature, candidate, contribution)` for every value of the matrix, feature by feature.
template <typename Take>
void walk(const Floats &matrix, const Floats &weights, const Floats &lows, const Floats &per_step, Take take) {
    const py::ssize_t n = matrix.shape(1), knots = weights.shape(1);
    const float end = float(knots - 1) - 0.001f;
    for (py::ssize_t f = 0; f < matrix.shape(0); ++f) {
        const float low = lows.data()[f], scale = per_step.data()[f];
        const float *const values = matrix.data() + f * n;
        const float *const curve = weights.data() + f * knots;
        float last = NAN, part = 0;  // a column is often one value over and over
        for (py::ssize_t i = 0; i < n; ++i) {
            if (values[i] != last) {
                const float place = std::min(std::max((values[i] - low) * scale, 0.f), end);
                const int knot = int(place);
                part = curve[knot] + (place - float(knot)) * (curve[knot + 1] - curve[knot]);
                last = values[i];
            }
            take(f, i, part);
        }
    }
}

Floats contributions(const Floats &matrix, const Floats &weights, const Floats &lows, const Floats &per_step) {
    const py::ssize_t n = matrix.shape(1);
    Floats result({matrix.shape(0), n});
    float *const out = result.mutable_data();
    walk(matrix, weights, lows, per_step, [=](py::ssize_t f, py::ssize_t i, float part) { out[f * n + i] = part; });
    return result;
}

Floats scores(const Floats &matrix, const Floats &weights, const Floats &lows, const Floats &per_step) {
    Floats result(matrix.shape(1));
    float *const out = result.mutable_data();
    std::fill(out, out + matrix.shape(1), 0.f);
    walk(matrix, weights, lows, per_step, [=](py::ssize_t, py::ssize_t i, float part) { out[i] += part; });
    return result;
}

// The order of all candidates, best first, and their scores: the known ones ranked among the places that known ones
// have, an unknown one (row -1) where it stands, with the score of its neighbour above.
py::tuple rank(const Floats &vectors, const Floats &log_prices, const Array<int32_t> &types, const Rows &rows,
               const Doubles &said, const Doubles &prices, const Floats &queries, const std::vector<int64_t> &columns,
               const Floats &type_similarities, const std::vector<int64_t> &acted, const std::vector<int64_t> &counts,
               const bool inside, const std::vector<int64_t> &shown, const double log_price, const Floats &weights,
               const Floats &lows, const Floats &per_step) {
    const py::ssize_t n = rows.size();
    py::ssize_t known = 0;
    Rows places(n), own(n), positions(n), order(n);
    Doubles scores_said(n), prices_said(n);
    for (py::ssize_t i = 0; i < n; ++i) {
        order.mutable_data()[i] = i;
        if (rows.data()[i] < 0) continue;
        places.mutable_data()[known] = i;
        positions.mutable_data()[known] = i + 1;
        own.mutable_data()[known] = rows.data()[i];
        scores_said.mutable_data()[known] = said.data()[i];
        prices_said.mutable_data()[known] = prices.data()[i];
        ++known;
    }
    for (py::array *const array : {(py::array *)&own, (py::array *)&positions, (py::array *)&scores_said,
                                   (py::array *)&prices_said})
        array->resize({known});
    const Floats made = scores(features(vectors, log_prices, types, own, positions, scores_said, prices_said, queries,
                                        columns, type_similarities, acted, counts, inside, shown, log_price),
                               weights, lows, per_step);
    const float *const score = made.data();
    for (py::ssize_t k = 0; k < known; ++k)
        if (!(std::fabs(score[k]) < MOST)) throw py::value_error("a score beyond all measure");
    std::vector<std::pair<float, int64_t>> best(known);  // of equal scores the caller's first comes first
    for (py::ssize_t k = 0; k < known; ++k) best[k] = {-score[k], k};
    std::sort(best.begin(), best.end());
    Floats all(n);
    for (py::ssize_t k = 0; k < known; ++k) {
        order.mutable_data()[places.data()[k]] = places.data()[best[k].second];
        all.mutable_data()[places.data()[k]] = score[k];
    }
    float above = known ? -best[0].first : 0;
    for (py::ssize_t i = 0; i < n; ++i) {
        const int64_t at = order.data()[i];
        if (rows.data()[at] >= 0) above = all.data()[at];
        else all.mutable_data()[at] = above;
    }
    return py::make_tuple(order, all);
}

PYBIND11_MODULE(_kernel, module) {
    py::tuple names(py::ssize_t{COLUMNS});
    for (int i = 0; i < COLUMNS; ++i) names[i] = NAMES[i];
    module.attr("NAMES") = names;
    py::class_<Directory>(module, "Directory").def(py::init<const py::list &>()).def("set", &Directory::set);
    module.def("gather", &gather);
    module.def("taste", &taste);
    module.def("features", &features);
    module.def("contributions", &contributions);
    module.def("scores", &scores);
    module.def("rank", &rank);
}
