// What a rank request computes for every candidate, where numpy's price of a call would be most of the time.
//
// Shapes and meanings are said where these are called: models/features.py and models/ranker.py.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
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

// What the caller says of each candidate: its row (-1: unknown), its score and its price (NaN: not said); whether each
// listing surely stands once, and whether any is pinned.
py::tuple gather(const py::object &candidates, const py::dict &row) {
    static Field listing_id("listing_id"), score("score"), price("price"), pin("pin");
    const py::object sequence = py::reinterpret_steal<py::object>(PySequence_Fast(candidates.ptr(), "a sequence"));
    if (!sequence) throw py::error_already_set();
    const Py_ssize_t n = PySequence_Fast_GET_SIZE(sequence.ptr());
    Rows rows(n);
    Doubles scores(n), prices(n);
    int64_t *const at = rows.mutable_data();
    const auto number = [](PyObject *const said) { return said == Py_None ? NAN : PyFloat_AsDouble(said); };
    std::vector<Py_hash_t> hashes(n);
    bool pinned = false;
    for (Py_ssize_t i = 0; i < n; ++i) {
        PyObject *const candidate = PySequence_Fast_GET_ITEM(sequence.ptr(), i);
        PyObject *const id = listing_id.of(candidate);
        hashes[i] = PyObject_Hash(id);
        PyObject *const found = PyDict_GetItemWithError(row.ptr(), id);
        at[i] = found ? PyLong_AsLongLong(found) : -1;
        scores.mutable_data()[i] = number(score.of(candidate));
        prices.mutable_data()[i] = number(price.of(candidate));
        pinned |= pin.of(candidate) != Py_None;
    }
    if (PyErr_Occurred()) throw py::error_already_set();
    std::sort(hashes.begin(), hashes.end());
    const bool once = std::adjacent_find(hashes.begin(), hashes.end()) == hashes.end();
    return py::make_tuple(rows, scores, prices, once, pinned);
}

// The unit means of groups of rows, and behind them `vector` where it is not None.
Floats centroids(const Floats &vectors, const std::vector<int64_t> &rows, const std::vector<int64_t> &groups,
                 const py::ssize_t count, const py::object &vector) {
    const py::ssize_t size = vectors.shape(1);
    std::vector<double> sums(count * size, 0.0);
    for (size_t i = 0; i < rows.size(); ++i) {
        const float *const from = vectors.data() + rows[i] * size;
        double *const sum = sums.data() + groups[i] * size;
        for (py::ssize_t j = 0; j < size; ++j) sum[j] += from[j];
    }
    Floats result({count + (vector.is_none() ? 0 : 1), size});
    float *const out = result.mutable_data();
    for (py::ssize_t group = 0; group < count; ++group) {
        const double *const sum = sums.data() + group * size;
        double square = 0;
        for (py::ssize_t j = 0; j < size; ++j) square += sum[j] * sum[j];
        const double scale = square > 1e-18 ? 1 / std::sqrt(square) : 0;
        for (py::ssize_t j = 0; j < size; ++j) out[group * size + j] = float(sum[j] * scale);
    }
    if (!vector.is_none()) {
        const py::tuple values = py::reinterpret_borrow<py::tuple>(vector);
        if (py::ssize_t(values.size()) != size) throw py::value_error("a vector of another space");
        for (py::ssize_t j = 0; j < size; ++j) out[count * size + j] = values[j].cast<float>();
    }
    return result;
}

// So many products are made side by side, in four registers. No sum is split among lanes, so the order of additions,
// and with it every bit, is that of a plain loop.
constexpr py::ssize_t WIDE = 16;
typedef float Lanes __attribute__((vector_size(16), aligned(4), may_alias));

void products(const float *const vector, const float *const turned, const py::ssize_t size, float *const out) {
    Lanes a = {}, b = {}, c = {}, d = {};
    for (py::ssize_t j = 0; j < size; ++j) {
        const Lanes *const line = reinterpret_cast<const Lanes *>(turned + j * WIDE);
        const float value = vector[j];
        a += value * line[0];
        b += value * line[1];
        c += value * line[2];
        d += value * line[3];
    }
    Lanes *const to = reinterpret_cast<Lanes *>(out);
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
            products(vectors.data() + rows.data()[i] * size, turned.data(), size, sums.data() + i * WIDE);
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
        for (py::ssize_t i = 0; i < n; ++i) {
            const float place = std::min(std::max((values[i] - low) * scale, 0.f), end);
            const int knot = int(place);
            take(f, i, curve[knot] + (place - float(knot)) * (curve[knot + 1] - curve[knot]));
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

PYBIND11_MODULE(_kernel, module) {
    py::tuple names(py::ssize_t{COLUMNS});
    for (int i = 0; i < COLUMNS; ++i) names[i] = NAMES[i];
    module.attr("NAMES") = names;
    module.def("gather", &gather);
    module.def("centroids", &centroids);
    module.def("features", &features);
    module.def("contributions", &contributions);
    module.def("scores", &scores);
}
