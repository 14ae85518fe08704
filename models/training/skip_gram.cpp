// Skip-gram with negative sampling, pair by pair: Mikolov et al., "Distributed representations of words and phrases and
// their compositionality", NIPS 2013, equation 4, with the global context and the negatives of the own market of
// Grbovic and Cheng, "Real-time personalization using embeddings for search ranking at Airbnb", KDD 2018, equations 4
// and 5. The rows move by Adagrad (Duchi, Hazan and Singer, 2011) with one accumulator a row.
//
// What is done here is what models.training.skip_gram does by autograd, where shapes and meanings are said; a test
// compares them. Several threads move the same rows without locks, and now and then one's move is lost (Recht et al.,
// "Hogwild!", NIPS 2011). One thread gives the same bits for the same seed.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

namespace py = pybind11;

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE_WHERE_IT_CAN_BE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE_WHERE_IT_CAN_BE
#endif
// Inlined, a function is compiled for the processor of whoever calls it.
#define INLINED inline __attribute__((always_inline))

// Eight sums side by side, added up at the end in one order: narrow registers and wide ones give the same bits.
typedef float Eight __attribute__((vector_size(32), aligned(4), may_alias));
constexpr py::ssize_t WIDE = 8;

INLINED Eight &eight(float *const at) { return *reinterpret_cast<Eight *>(at); }
INLINED const Eight &eight(const float *const at) { return *reinterpret_cast<const Eight *>(at); }

INLINED float dot(const float *const a, const float *const b, const py::ssize_t size) {
    Eight sums{};
    float rest = 0;
    py::ssize_t j = 0;
    for (; j + WIDE <= size; j += WIDE) sums += eight(a + j) * eight(b + j);
    for (; j < size; ++j) rest += a[j] * b[j];
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7])) + rest;
}

// `to` += scale * `of`.
INLINED void add(float *const to, const float scale, const float *const of, const py::ssize_t size) {
    py::ssize_t j = 0;
    for (; j + WIDE <= size; j += WIDE) eight(to + j) += scale * eight(of + j);
    for (; j < size; ++j) to[j] += scale * of[j];
}

// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
struct Random {
    uint64_t state;

    INLINED uint64_t next() {
        uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    INLINED double unit() { return double(next() >> 11) * 0x1p-53; }
    INLINED uint32_t below(const uint32_t end) { return uint32_t(((next() >> 32) * end) >> 32); }
};

// models.training.noise.Noise says what this is.
struct Noise {
    Noise(Array<int32_t> listings, Array<double> ends, Array<int32_t> guide, Array<double> low, Array<double> high,
          const int tries)
        : arrays{listings, ends, guide, low, high}, listings(listings.data()), ends(ends.data()), guide(guide.data()),
          low(low.data()), high(high.data()), size(listings.size()), tries(tries) {}

    INLINED int32_t at(const double point) const {
        int64_t place = guide[std::min(int64_t(point * double(size)), size - 1)];
        while (ends[place] <= point && place < size - 1) ++place;
        return listings[place];
    }
    // A listing other than the context, where some tries find one.
    INLINED int32_t draw(Random &random, const double from, const double to, const int32_t context) const {
        int32_t drawn = context;
        for (int left = tries; drawn == context && left > 0; --left) drawn = at(from + random.unit() * (to - from));
        return drawn;
    }

    const std::vector<py::array> arrays;
    const int32_t *const listings;
    const double *const ends;
    const int32_t *const guide;
    const double *const low, *const high;
    const int64_t size;
    const int tries;
};

// Vectors of listings as centres and as contexts, [n, d], and the sums of their squared gradients, [n].
struct Tables {
    Tables(Array<float> centres, Array<float> contexts, Array<float> centre_sums, Array<float> context_sums)
        : arrays{centres, contexts, centre_sums, context_sums}, centres(centres.mutable_data()),
          contexts(contexts.mutable_data()), centre_sums(centre_sums.mutable_data()),
          context_sums(context_sums.mutable_data()), dimensions(centres.shape(1)) {}

    const std::vector<py::array> arrays;
    float *const centres, *const contexts, *const centre_sums, *const context_sums;
    const py::ssize_t dimensions;
};

// The sum of -log of many probabilities: their product's logarithm, taken before it is too small for a double.
struct Loss {
    double sum = 0, product = 1;

    INLINED void add(const double probability) {
        product *= probability;
        if (product < 1e-200) sum -= std::log(product), product = 1;
    }
    double total() const { return sum - std::log(product); }
};

constexpr float FARTHEST = 80;  // beyond it a float's exponential overflows

// One pair: the centre l, and of `others` the context c first, then its negatives n. What it costs is
//   -log sigmoid(v'c . vl) - sum over n of log sigmoid(-v'n . vl).
// The gradient of one term, of the score, is minus the probability of its being wrong, or plus it for a negative.
template <py::ssize_t KNOWN>
INLINED void step(const Tables &tables, const int32_t centre, const int32_t *const others, const int many,
                  const float learning_rate, float *const wrong, float *const gradient, Loss &loss) {
    const py::ssize_t size = KNOWN ? KNOWN : tables.dimensions;
    float *const v = tables.centres + centre * size;
    for (int k = 0; k < many; ++k) {
        const float score = dot(tables.contexts + others[k] * size, v, size);
        const float right = std::exp(std::clamp(k ? -score : score, -FARTHEST, FARTHEST));  // its odds
        wrong[k] = 1 / (1 + right);
        loss.add(double(right) * wrong[k]);
    }
    const float square = dot(v, v, size) / float(size);
    std::fill(gradient, gradient + size, 0.f);
    for (int k = 0; k < many; ++k) {
        float *const u = tables.contexts + others[k] * size;
        const float slope = k ? wrong[k] : -wrong[k];
        add(gradient, slope, u, size);
        const float sum = tables.context_sums[others[k]] += slope * slope * square;
        add(u, -learning_rate * slope / std::sqrt(sum), v, size);
    }
    const float sum = tables.centre_sums[centre] += dot(gradient, gradient, size) / float(size);
    add(v, -learning_rate / std::sqrt(sum), gradient, size);
}

struct Settings {
    int window, negatives, market_negatives;
    float learning_rate;
};

// Sessions `first` up to `last`, of those that lie end to end in `tokens`.
struct Share {
    const Tables &tables;
    const Noise &noise;
    const Settings &settings;
    const int32_t *tokens;
    const int64_t *starts;
    const int32_t *booked;
    int64_t first, last;
    Random random;
    Loss loss{};
    int64_t pairs = 0;
};

template <py::ssize_t KNOWN> INLINED void go(Share &share) {
    const Settings &settings = share.settings;
    const Noise &noise = share.noise;
    Random random = share.random;
    Loss loss;
    const int many = 1 + settings.negatives + settings.market_negatives;
    std::vector<int32_t> others(many);
    std::vector<float> wrong(many), gradient(share.tables.dimensions);
    int64_t pairs = 0;
    for (int64_t session = share.first; session < share.last; ++session) {
        const int64_t start = share.starts[session], end = share.starts[session + 1];
        const int32_t booked = share.booked[session];
        for (int64_t i = start; i < end; ++i) {
            const int32_t centre = share.tokens[i];
            const double low = noise.low[centre], high = noise.high[centre];
            const int64_t reach = 1 + random.below(uint32_t(settings.window));
            const int64_t far = std::min(i + reach, end - 1);
            // After the window comes what was booked, which is a context of every click.
            for (int64_t j = std::max(i - reach, start); j <= far + 1; ++j) {
                const int32_t context = j <= far ? share.tokens[j] : booked;
                if (context < 0 || context == centre) continue;
                others[0] = context;
                for (int k = 1; k < many; ++k)
                    others[k] = k <= settings.negatives ? noise.draw(random, 0, 1, context)
                                                        : noise.draw(random, low, high, context);
                step<KNOWN>(share.tables, centre, others.data(), many, settings.learning_rate, wrong.data(),
                            gradient.data(), loss);
                ++pairs;
            }
        }
    }
    share.loss = loss, share.pairs = pairs;
}

WIDE_WHERE_IT_CAN_BE
void run(Share &share) {
    switch (share.tables.dimensions) {  // a loop of known length is unrolled
    case 32: return go<32>(share);
    case 64: return go<64>(share);
    case 128: return go<128>(share);
    default: return go<0>(share);
    }
}

std::pair<double, int64_t> fit(const Tables &tables, const Noise &noise, const Array<int32_t> &tokens,
                               const Array<int64_t> &starts, const Array<int32_t> &booked, const int window,
                               const int negatives, const int market_negatives, const float learning_rate,
                               const uint64_t seed, const int threads) {
    const Settings settings{window, negatives, market_negatives, learning_rate};
    const int64_t sessions = booked.size();
    std::vector<Share> shares;
    Random seeds{seed};
    for (int64_t k = 0; k < threads; ++k)
        shares.push_back({tables, noise, settings, tokens.data(), starts.data(), booked.data(),
                          sessions * k / threads, sessions * (k + 1) / threads, Random{seeds.next()}});
    {
        const py::gil_scoped_release unlocked;
        std::vector<std::thread> others;
        for (size_t k = 1; k < shares.size(); ++k) others.emplace_back(run, std::ref(shares[k]));
        run(shares[0]);
        for (std::thread &thread : others) thread.join();
    }
    std::pair<double, int64_t> sums{0, 0};
    for (const Share &share : shares) sums.first += share.loss.total(), sums.second += share.pairs;
    return sums;
}

double one(const Tables &tables, const int32_t centre, const Array<int32_t> &others, const float learning_rate) {
    const int many = int(others.size());
    std::vector<float> wrong(many), gradient(tables.dimensions);
    Loss loss;
    step<0>(tables, centre, others.data(), many, learning_rate, wrong.data(), gradient.data(), loss);
    return loss.total();
}

PYBIND11_MODULE(_skip_gram, module) {
    py::class_<Noise>(module, "Noise")
        .def(py::init<Array<int32_t>, Array<double>, Array<int32_t>, Array<double>, Array<double>, int>())
        .def("at", &Noise::at);
    py::class_<Tables>(module, "Tables")
        .def(py::init<Array<float>, Array<float>, Array<float>, Array<float>>(), py::arg("centres").noconvert(),
             py::arg("contexts").noconvert(), py::arg("centre_sums").noconvert(),
             py::arg("context_sums").noconvert());  // a copy would be what learns
    module.def("fit", &fit);
    module.def("step", &one);
}
