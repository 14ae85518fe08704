// What a rank request computes for every candidate, where numpy's price of a call would be most of the time.
//
// Shapes and meanings are said where these are called, beside this file.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "candidates.hpp"
#include "directory.hpp"
#include "records.hpp"
#include "visitor.hpp"

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

// What is known of the listings, by row, as models.space.Space has it.
struct Table {
    Table(const Directory &directory, const Floats &vectors, const Floats &log_prices, const Array<int32_t> &types,
          const py::list &markets)
        : directory(directory), vectors(vectors), log_prices(log_prices), types(types), markets(markets) {}

    py::ssize_t size() const { return vectors.shape(1); }
    const float *vector(const int64_t row) const { return vectors.data() + row * size(); }

    const Directory &directory;
    const Floats vectors, log_prices;
    const Array<int32_t> types;
    const py::list markets;
};

// models.profile.Profile says what this is.
struct Profile {
    Floats queries;
    std::vector<int64_t> columns;
    Floats type_similarities;
    std::vector<int64_t> acted, counts;
    bool inside = false;
    std::vector<int64_t> shown;
    double log_price = NAN;
    long actions = 0, in_range = 0, priced = 0;
    bool booked = false, open = false;
};

// The histories, by the first letter of what was done, which all differ.
int history(const Text kind) {
    switch (kind.empty() ? '\0' : kind[0]) {
    case 'c': return CLICKED;
    case 'l': return LONG_CLICKED;
    case 's': return SKIPPED;
    case 'w': return WISHLISTED;
    case 'i': return INQUIRED;
    case 'b': return BOOKED;
    default: return -1;  // a rejection
    }
}

Text text(PyObject *const string) {
    Py_ssize_t size;
    const char *const bytes = PyUnicode_AsUTF8AndSize(string, &size);
    if (!bytes) throw py::error_already_set();
    return {bytes, size_t(size)};
}

// How often each known listing was acted on in the session, the last one last.
void in_session(const Visit &session, const Directory &directory, Profile &out) {
    for (const Deed &deed : session.done) {
        const int column = history(deed.kind);
        if (column < 0 || column == LONG_CLICKED || column == SKIPPED) continue;
        const int64_t row = directory.row(deed.listing);
        if (row < 0) continue;
        const auto known = std::find(out.acted.begin(), out.acted.end(), row);
        int64_t count = 1;
        if (known != out.acted.end()) {
            const auto counted = out.counts.begin() + (known - out.acted.begin());
            count += *counted;
            out.counts.erase(counted);
            out.acted.erase(known);
        }
        out.acted.push_back(row);
        out.counts.push_back(count);
    }
}

// What was done, as unit vectors: the centroid of each history in each market, and the last long click; the feature
// that each is for; and of the actions what a user type is made of.
void taste(const Visitor &visitor, const int64_t since, const Table &table, const py::list &ranges,
           std::vector<double> &sums, Profile &out) {
    struct Group { int column; Text market; };
    const py::ssize_t size = table.size();
    std::vector<const Deed *> deeds;
    visitor.deeds(since, [&](const Deed &deed) { deeds.push_back(&deed); });
    std::vector<int64_t> rows(deeds.size());
    std::vector<uint64_t> hashes(deeds.size());
    table.directory.rows(deeds.size(), [&](const size_t i) { return deeds[i]->listing; }, rows.data(), hashes.data());
    for (int64_t &row : rows) {
        if (row >= table.vectors.shape(0)) row = -1;  // it may have been put since
        if (row >= 0) prefetch(reinterpret_cast<const char *>(table.vector(row)), size * sizeof(float));
    }
    std::vector<Group> groups;
    const float *last = nullptr;
    int64_t when = -1;
    for (size_t i = 0; i < deeds.size(); ++i) {
        const Deed &deed = *deeds[i];
        const int64_t at = rows[i];
        const int column = history(deed.kind);
        if (at < 0 || column < 0) continue;
        const float *const from = table.vector(at);
        Text market = deed.market;
        if (!market.data())
            if (PyObject *const own = PyList_GET_ITEM(table.markets.ptr(), at); own != Py_None) market = text(own);
        size_t group = 0;
        const auto is = [&](const Group &known) {
            return known.column == column && known.market == market && !known.market.data() == !market.data();
        };
        while (group < groups.size() && !is(groups[group])) ++group;
        if (group == groups.size()) {
            groups.push_back({column, market});
            sums.resize(sums.size() + size, 0.0);
        }
        double *const sum = sums.data() + group * size;
        for (py::ssize_t j = 0; j < size; ++j) sum[j] += from[j];
        if (column == LONG_CLICKED) {
            if (deed.timestamp >= when) when = deed.timestamp, last = from;
        } else if (column != SKIPPED) {
            ++out.actions;
            out.booked |= column == BOOKED;
            if (at < PyList_GET_SIZE(ranges.ptr())) {
                const long range = PyLong_AsLong(PyList_GET_ITEM(ranges.ptr(), at));
                if (range >= 0) out.in_range += range, ++out.priced;
            }
        }
    }
    for (const Group &group : groups) out.columns.push_back(group.column);
    if (last) {
        out.columns.push_back(LAST_LONG_CLICK);
        sums.insert(sums.end(), last, last + size);
    }
}

// The type of a user who has acted so often, in two weeks, on listings of which so many have a price range, those ranges
// together being `in_range`.
std::string user_type(const long actions, const long in_range, const long priced, const bool booked) {
    const int often = actions < 3 ? 0 : actions < 10 ? 1 : 2;
    const long range = priced ? long(std::nearbyint(double(in_range) / double(priced))) : -1;
    return std::to_string(often) + '/' + std::to_string(range) + (booked ? "/1" : "/0");
}

Profile profile(const Visitor &visitor, const int64_t timestamp, const int64_t gap, const int64_t history,
                const Table &table, const py::list &ranges, const py::dict &types, const bool similar, const bool own) {
    Profile out;
    const py::ssize_t size = table.size();
    const Visit *const session = visitor.open(timestamp, gap);
    out.open = session;
    if (session) {
        in_session(*session, table.directory, out);
        out.inside = visitor.inside;
        for (const Text listing : visitor.shown)
            if (const int64_t row = table.directory.row(listing); row >= 0) out.shown.push_back(row);
    }
    double sum = 0;
    long known = 0;
    for (const int64_t row : out.acted)
        if (row < table.log_prices.size() && !std::isnan(table.log_prices.data()[row]))
            sum += table.log_prices.data()[row], ++known;
    if (known) out.log_price = sum / double(known);
    std::vector<double> sums;
    if (similar) taste(visitor, timestamp - history, table, ranges, sums, out);
    if (out.actions && !types.empty()) {
        const py::str name(user_type(out.actions, out.in_range, out.priced, out.booked));
        if (PyObject *const found = PyDict_GetItem(types.ptr(), name.ptr()))
            out.type_similarities = py::reinterpret_borrow<Floats>(found);
    }
    const bool whole = similar && own && session && visitor.vector;
    if (whole) {
        if (py::ssize_t(visitor.vector->size()) != size) throw py::value_error("a vector of another space");
        out.columns.push_back(SIMILARITY);
    }
    out.queries = Floats({py::ssize_t(out.columns.size()), size});
    float *to = out.queries.mutable_data();
    for (size_t first = 0; first < sums.size(); first += size, to += size) {
        double square = 0;
        for (py::ssize_t j = 0; j < size; ++j) square += sums[first + j] * sums[first + j];
        const double scale = square > 1e-18 ? 1 / std::sqrt(square) : 0;
        for (py::ssize_t j = 0; j < size; ++j) to[j] = float(sums[first + j] * scale);
    }
    if (whole)
        for (const double value : *visitor.vector) *to++ = float(value);
    return out;
}

// So many candidates' products are made side by side, with so many queries: as many sums as the processor can add up
// without waiting for one of them. No sum is split among lanes, so the order of additions, and with it every bit, is
// that of a plain loop, with narrow registers or wide ones.
constexpr py::ssize_t WIDE = 8, SIDE_BY_SIDE = 4;

typedef float Eight __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE_WHERE_IT_CAN_BE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE_WHERE_IT_CAN_BE
#endif

// `sums[c * WIDE + k]` is the product of candidate c and query k; in `turned` the queries' values lie by dimension.
WIDE_WHERE_IT_CAN_BE
void products(const float *const *const vectors, const py::ssize_t size, const float *const turned,
              float *const sums) {
    Eight a{}, b{}, c{}, d{};
    for (py::ssize_t j = 0; j < size; ++j) {
        const Eight line = *reinterpret_cast<const Eight *>(turned + j * WIDE);
        a += vectors[0][j] * line, b += vectors[1][j] * line, c += vectors[2][j] * line, d += vectors[3][j] * line;
    }
    Eight *const to = reinterpret_cast<Eight *>(sums);
    to[0] = a, to[1] = b, to[2] = c, to[3] = d;
}

// n known candidates: their rows, their places in the caller's list, and what the caller says of them.
struct Known {
    const py::ssize_t n;
    const int64_t *const row, *const position;
    const double *const score, *const price;
};

// Each candidate's similarity to each query goes to the query's column, which keeps the greatest.
void similarities(const Table &table, const Known &known, const Profile &profile, float *const out) {
    const py::ssize_t n = known.n, size = table.size(), count = py::ssize_t(profile.columns.size());
    std::vector<float> turned(size * WIDE);
    std::vector<char> some(n);  // a listing without a vector is like nothing
    for (py::ssize_t i = 0; i < n; ++i) {
        const float *const vector = table.vector(known.row[i]);
        some[i] = std::any_of(vector, vector + size, [](float value) { return value != 0; });
    }
    for (py::ssize_t first = 0; first < count; first += WIDE) {
        const py::ssize_t wide = std::min(WIDE, count - first);
        for (py::ssize_t j = 0; j < size; ++j)
            for (py::ssize_t k = 0; k < WIDE; ++k)
                turned[j * WIDE + k] = k < wide ? profile.queries.data()[(first + k) * size + j] : 0.f;
        for (py::ssize_t i = 0; i < n; i += SIDE_BY_SIDE) {
            const float *many[SIDE_BY_SIDE];
            for (py::ssize_t c = 0; c < SIDE_BY_SIDE; ++c)
                many[c] = table.vector(known.row[std::min(i + c, n - 1)]);
            float sums[SIDE_BY_SIDE * WIDE];
            products(many, size, turned.data(), sums);
            for (py::ssize_t c = 0; c < std::min(SIDE_BY_SIDE, n - i); ++c)
                for (py::ssize_t k = 0; some[i + c] && k < wide; ++k) {
                    float &greatest = out[profile.columns[first + k] * n + i + c];
                    greatest = std::max(greatest, sums[c * WIDE + k]);
                }
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

// log2 of a place in a list.
float logarithm(const int64_t place) {
    static const std::vector<float> known = [] {
        std::vector<float> made(1024);
        for (size_t at = 1; at < made.size(); ++at) made[at] = std::log2(float(at));
        return made;
    }();
    return place > 0 && place < int64_t(known.size()) ? known[place] : std::log2(float(place));
}

// The features, [COLUMNS, n], as models.features says what they are.
void compute(const Table &table, const Known &known, const Profile &profile, float *const out) {
    const py::ssize_t n = known.n;
    const auto column = [&](Column which) { return out + which * n; };
    std::fill(out, out + COLUMNS * n, 0.f);
    std::fill(column(SIMILARITY), column(USER_TYPE) + n, NO_SIMILARITY);
    std::fill(column(DISTANCE), column(DISTANCE) + n, NO_DISTANCE);
    std::fill(column(PRICE), column(PRICE) + n, NO_PRICE);
    const int64_t *const row = known.row;
    const int64_t *const position = known.position;
    for (py::ssize_t i = 0; i < n; ++i) column(POSITION)[i] = logarithm(position[i]);
    standardise(known.score, n, column(CALLER_SCORE));
    if (!profile.columns.empty()) similarities(table, known, profile, out);
    if (profile.type_similarities.size() > 0)
        for (py::ssize_t i = 0; i < n; ++i) {
            const int32_t type = table.types.data()[row[i]];
            if (type >= 0) column(USER_TYPE)[i] = profile.type_similarities.data()[type];
        }
    const std::vector<int64_t> &acted = profile.acted, &shown = profile.shown;
    py::ssize_t last = -1;  // the candidate acted on last, and which of `acted` it is
    size_t newest = 0;
    for (size_t k = 0; k < acted.size(); ++k)
        for (py::ssize_t i = 0; i < n; ++i)
            if (row[i] == acted[k]) {
                column(profile.inside ? RECENCY : RECENCY_OUTSIDE)[i] = float(acted.size() - k);
                column(FREQUENCY)[i] = float(profile.counts[k]);
                if (last < 0 || k > newest) last = i, newest = k;
            }
    const auto here = [&](int64_t listing) { return std::find(row, row + n, listing) != row + n; };
    if (last >= 0 && !shown.empty() && std::all_of(shown.begin(), shown.end(), here))
        for (py::ssize_t i = 0; i < n; ++i) {
            const float below = float(position[i] - position[last]);
            const float distance = std::copysign(std::log2(1 + std::fabs(below)), below);
            column(DISTANCE)[i] = std::min(std::max(distance, -FARTHEST), FARTHEST);
        }
    if (std::isfinite(profile.log_price))
        for (py::ssize_t i = 0; i < n; ++i) {
            const double said = known.price[i];
            const float price = said > 0 ? float(std::log2(said)) : table.log_prices.data()[row[i]];
            const float dearer = price - float(profile.log_price);
            if (std::isfinite(dearer)) column(PRICE)[i] = std::min(std::max(dearer, -DEAREST), DEAREST);
        }
}

Floats features(const Table &table, const Rows &rows, const Rows &positions, const Doubles &scores,
                const Doubles &prices, const Profile &profile) {
    Floats result({py::ssize_t(COLUMNS), rows.size()});
    compute(table, {rows.size(), rows.data(), positions.data(), scores.data(), prices.data()}, profile,
            result.mutable_data());
    return result;
}

// The ranker's curves: [F, knots] weights, and where the first knot of each is and how many there are to one.
struct Curves {
    Curves(const Floats &weights, const Floats &lows, const Floats &per_step)
        : weights(weights), lows(lows), per_step(per_step) {}

    const Floats weights, lows, per_step;
};

// What a feature's values add to the scores, each by the curve at whose knots `weights` stand.
WIDE_WHERE_IT_CAN_BE
void add_curve(const float *const __restrict values, const py::ssize_t n, const float *const __restrict weights,
               const float low, const float scale, const float end, float *const __restrict out) {
    for (py::ssize_t i = 0; i < n; ++i) {
        float place = (values[i] - low) * scale;
        place = place > 0.f ? place : 0.f;
        place = place < end ? place : end;
        const int32_t knot = int32_t(place);
        out[i] += weights[knot] + (place - float(knot)) * (weights[knot + 1] - weights[knot]);
    }
}

// Adds what each feature of a matrix, [F, n], contributes to the n candidates in `out`, or where `apart` to those of a
// row for each feature.
void add(const float *values, const py::ssize_t n, const Curves &curves, float *out, const bool apart) {
    const py::ssize_t features = curves.weights.shape(0), knots = curves.weights.shape(1);
    std::fill(out, out + (apart ? features * n : n), 0.f);
    for (py::ssize_t f = 0; f < features; ++f, values += n, out += apart ? n : 0)
        add_curve(values, n, curves.weights.data() + f * knots, curves.lows.data()[f], curves.per_step.data()[f],
                  float(knots - 1) - 0.001f, out);
}

Floats contributions(const Floats &matrix, const Curves &curves) {
    Floats result({matrix.shape(0), matrix.shape(1)});
    add(matrix.data(), matrix.shape(1), curves, result.mutable_data(), true);
    return result;
}

Floats scores(const Floats &matrix, const Curves &curves) {
    Floats result(matrix.shape(1));
    add(matrix.data(), matrix.shape(1), curves, result.mutable_data(), false);
    return result;
}

// A number that is the smaller the greater the score is.
uint32_t descending(const float score) {
    const float no_minus_zero = score + 0.f;
    uint32_t bits;
    std::memcpy(&bits, &no_minus_zero, sizeof bits);
    return bits & 0x80000000 ? bits : ~bits & 0x7FFFFFFF;
}

// The order of all candidates, best first, and their scores: the known ones ranked among the places that known ones
// have, an unknown one (row -1) where it stands, with the score of its neighbour above.
py::tuple rank(const Candidates &candidates, const Profile &profile, const Table &table, const Curves &curves) {
    const py::ssize_t n = py::ssize_t(candidates.rows.size());
    const std::vector<int64_t> &rows = candidates.rows;
    std::vector<int64_t> own(n), positions(n);
    std::vector<double> said(n), prices(n);
    Rows order(n);
    int64_t *const ranked = order.mutable_data();
    py::ssize_t known = 0;
    for (py::ssize_t i = 0; i < n; ++i) {
        ranked[i] = i;
        if (rows[i] < 0) continue;
        own[known] = rows[i];
        positions[known] = i + 1;
        said[known] = candidates.scores[i];
        prices[known++] = candidates.prices[i];
    }
    std::vector<float> matrix(COLUMNS * known), score(known);
    compute(table, {known, own.data(), positions.data(), said.data(), prices.data()}, profile, matrix.data());
    add(matrix.data(), known, curves, score.data(), false);
    for (const float each : score)
        if (!(std::fabs(each) < MOST)) throw py::value_error("a score beyond all measure");
    std::vector<uint64_t> best(known);  // of equal scores the caller's first comes first
    for (py::ssize_t k = 0; k < known; ++k) best[k] = uint64_t(descending(score[k])) << 32 | uint64_t(k);
    std::sort(best.begin(), best.end());
    Floats all(n);
    float *const scored = all.mutable_data();
    for (py::ssize_t k = 0; k < known; ++k) {
        ranked[positions[k] - 1] = positions[uint32_t(best[k])] - 1;
        scored[positions[k] - 1] = score[k];
    }
    float above = known ? score[uint32_t(best[0])] : 0;
    for (py::ssize_t i = 0; i < n; ++i) {
        const int64_t at = ranked[i];
        if (rows[at] >= 0) above = scored[at];
        else scored[at] = above;
    }
    return py::make_tuple(order, all);
}

template <typename T>
Array<T> copied(const std::vector<T> &values) {
    return Array<T>(py::ssize_t(values.size()), values.data());
}

py::object string(const Text text) {
    return text.data() ? py::object(py::str(text.data(), text.size())) : py::object(py::none());
}

// `events` in JSON.
std::vector<Event> read_events(const py::bytes &value, std::deque<std::string> &made) {
    json::Reader from(value, made);
    std::vector<Event> events = records::events(from);
    from.end();
    return events;
}

PYBIND11_MODULE(_kernel, module) {
    py::tuple names(py::ssize_t{COLUMNS});
    for (int i = 0; i < COLUMNS; ++i) names[i] = NAMES[i];
    module.attr("NAMES") = names;
    module.attr("LONG_CLICK_SECONDS") = LONG_CLICK_SECONDS;
    py::class_<Directory>(module, "Directory")
        .def(py::init<const std::vector<std::string> &>())
        .def("set", &Directory::set);
    py::class_<Table>(module, "Table")
        .def(py::init<const Directory &, const Floats &, const Floats &, const Array<int32_t> &, const py::list &>(),
             py::keep_alive<1, 2>());
    py::class_<Curves>(module, "Curves").def(py::init<const Floats &, const Floats &, const Floats &>());
    py::class_<Candidates>(module, "Candidates")
        .def(py::init<const py::object &>())
        .def("look_up", [](Candidates &self, const Table &table) {
            self.look_up(table.directory, table.vectors.data(), table.size() * sizeof(float));
        })
        .def("__len__", [](const Candidates &self) { return self.ids.size(); })
        .def_property_readonly("ids", [](const Candidates &self) {
            py::list ids;
            for (const Text id : self.ids) ids.append(string(id));
            return ids;
        })
        .def_readonly("pins", &Candidates::pins)
        .def_property_readonly("rows", [](const Candidates &self) { return copied(self.rows); })
        .def_property_readonly("scores", [](const Candidates &self) { return copied(self.scores); })
        .def_property_readonly("prices", [](const Candidates &self) { return copied(self.prices); })
        .def_property_readonly("unknown", [](const Candidates &self) {
            return std::count_if(self.rows.begin(), self.rows.end(), [](const int64_t row) { return row < 0; });
        })
        .def_readonly("once", &Candidates::once)
        .def_readonly("pinned", &Candidates::pinned);
    py::class_<Visitor>(module, "Visitor")
        .def(py::init<const py::bytes &, const std::optional<py::bytes> &, const std::optional<py::bytes> &>())
        .def("within", &Visitor::within)
        .def("open", [](const Visitor &self, const int64_t timestamp, const int64_t gap) {
            return self.open(timestamp, gap) != nullptr;
        })
        .def("deeds", [](const Visitor &self, const int64_t since) {
            long many = 0;
            self.deeds(since, [&](const Deed &) { ++many; });
            return many;
        })
        .def("packed", [](const Visitor &self) -> py::object {
            const std::string pack = self.packed();
            return pack.empty() ? py::object(py::none()) : py::object(py::bytes(pack));
        })
        .def_static("unpacked", [](std::string pack) { return std::make_unique<Visitor>(std::move(pack)); })
        .def_property_readonly("acted", [](const Visitor &self) {
            py::list listings;
            for (const Visit &session : self.sessions)
                for (const Deed &deed : session.done)
                    if (deed.kind != "skip") listings.append(string(deed.listing));
            return listings;
        })
        .def_property_readonly("bundle", [](const Visitor &self) { return string(self.bundle); })
        .def_property_readonly("vector", [](const Visitor &self) -> py::object {
            if (!self.vector) return py::none();
            return py::tuple(py::cast(*self.vector));
        })
        .def_readonly("as_of", &Visitor::as_of)
        .def_readonly("partition", &Visitor::partition)
        .def_readonly("offset", &Visitor::offset);
    py::class_<Profile>(module, "Profile")
        .def_readonly("open", &Profile::open)
        .def_property_readonly("empty", [](const Profile &self) {
            return self.columns.empty() && self.acted.empty() && !self.type_similarities.size();
        });
    module.def("dwell", [](const py::bytes &events) {
        std::deque<std::string> made;
        py::dict seconds;
        for (const auto &[id, stayed] : dwell(read_events(events, made))) seconds[string(id)] = stayed;
        return seconds;
    });
    module.def("done", [](const py::bytes &events) {
        std::deque<std::string> made;
        py::list deeds;
        for (const Deed &deed : done(read_events(events, made)))
            deeds.append(py::make_tuple(string(deed.kind), string(deed.listing), deed.timestamp, string(deed.market)));
        return deeds;
    });
    module.def("user_type", &user_type);
    module.def("profile", &profile);
    module.def("features", &features);
    module.def("contributions", &contributions);
    module.def("scores", &scores);
    module.def("rank", &rank);
}
