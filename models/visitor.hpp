// A visitor, as the records say.

#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "json.hpp"
#include "records.hpp"

// What is known of a visitor: their records, and the sessions that left the state before the history names them. Of the
// events it keeps what was done.
class Visitor {
  public:
    Visitor(const pybind11::bytes &embedding, const std::optional<pybind11::bytes> &history,
            const std::optional<pybind11::bytes> &kept)
        : kept_{embedding, history, kept} {
        enum { USER = 1, VECTOR = 2, BUNDLE = 4, AS_OF = 8, PARTITION = 16, OFFSET = 32, STATE = 64, ALL = 127 };
        int there = 0;
        record(embedding, [&](json::Reader &from, const Text key) {
            if (key == "user_id") from.string(), there |= USER;
            else if (key == "vector") read_vector(from), there |= VECTOR;
            else if (key == "bundle") bundle = from.string(), there |= BUNDLE;
            else if (key == "as_of") as_of = from.integer(), there |= AS_OF;
            else if (key == "partition") partition = from.integer(), there |= PARTITION;
            else if (key == "offset") offset = from.integer(), there |= OFFSET;
            else if (key == "version") records::version(from);
            else if (key == "state") from.object([&](const Text part) {
                if (part == "sessions") read_sessions(from);
                else if (part == "version") records::version(from);
                else from.skip();
            }), there |= STATE;
            else from.skip();
        });
        if (there != ALL) throw json::Wrong("a record without all of its parts");
        if (history) record(*history, [&](json::Reader &from, const Text key) {
            if (key == "visits") from.array([&](size_t) { visits.push_back(records::visit(from)); });
            else if (key == "version") records::version(from);
            else from.skip();
        });
        if (kept) {
            json::Reader from(*kept, made_);
            for (const Session &session : records::sessions(from)) closed.push_back(visited(session));
            from.end();
        }
    }

    // As `packed` has it.
    explicit Visitor(std::string pack) : pack_(std::move(pack)) {
        const char *at = pack_.data();
        const auto take = [&] {
            uint64_t value = 0;
            for (int shift = 0;; shift += 7) {
                const uint8_t byte = uint8_t(*at++);
                value |= uint64_t(byte & 0x7F) << shift;
                if (byte < 0x80) return value;
            }
        };
        const auto signed_ = [&] {
            const uint64_t value = take();
            return int64_t(value >> 1) ^ -int64_t(value & 1);
        };
        const auto text = [&] {
            const size_t size = take();
            at += size;
            return Text(at - size, size);
        };
        as_of = signed_(), offset = signed_(), partition = signed_();
        inside = take();
        bundle = text();
        if (const uint64_t more = take()) {
            vector.emplace(more - 1);
            for (double &value : *vector) {
                int32_t millionths;
                std::memcpy(&millionths, at, sizeof millionths);
                at += sizeof millionths;
                value = double(millionths) / 1e6;
            }
        }
        std::vector<Text> texts(take());
        for (Text &each : texts) each = text();
        const auto named = [&] {
            const uint64_t number = take();
            return number ? texts[number - 1] : Text();
        };
        for (auto *const many : {&visits, &closed, &sessions}) {
            many->resize(take());
            for (Visit &visit : *many) {
                visit.first = signed_(), visit.last = visit.first + signed_();
                visit.done.resize(take());
                for (Deed &deed : visit.done) {
                    deed.kind = records::KINDS[take()];
                    deed.listing = named(), deed.market = named();
                    deed.timestamp = visit.first + signed_();
                }
            }
        }
        shown.resize(take());
        for (Text &listing : shown) listing = named();
    }

    // All of it in few bytes; none where they can't say it to the last bit.
    std::string packed() const {
        std::string out;
        const auto put = [&](uint64_t value) {
            for (; value >= 0x80; value >>= 7) out += char(value | 0x80);
            out += char(value);
        };
        const auto signed_ = [&](const int64_t value) { put(uint64_t(value) << 1 ^ uint64_t(value >> 63)); };
        const auto text = [&](const Text value) {
            put(value.size());
            out.append(value);
        };
        std::vector<Text> texts;
        const auto named = [&](const Text value) {
            if (!value.data()) return put(0);
            const auto known = std::find(texts.begin(), texts.end(), value);
            put(uint64_t(known - texts.begin()) + 1);
            if (known == texts.end()) texts.push_back(value);
        };
        for (const auto *const many : {&visits, &closed, &sessions}) {
            put(many->size());
            for (const Visit &visit : *many) {
                signed_(visit.first), signed_(visit.last - visit.first);
                put(visit.done.size());
                for (const Deed &deed : visit.done) {
                    const auto kind = std::find(std::begin(records::KINDS), std::end(records::KINDS), deed.kind);
                    put(uint64_t(kind - std::begin(records::KINDS)));
                    named(deed.listing), named(deed.market);
                    signed_(deed.timestamp - visit.first);
                }
            }
        }
        put(shown.size());
        for (const Text listing : shown) named(listing);
        const std::string lists = std::move(out);  // behind the texts, all of which are known only now
        out.clear();
        signed_(as_of), signed_(offset), signed_(partition);
        put(inside);
        text(bundle);
        put(vector ? vector->size() + 1 : 0);
        if (vector)
            for (const double value : *vector) {
                const double millionths = std::nearbyint(value * 1e6);
                if (!(std::fabs(millionths) < 2e9) || millionths / 1e6 != value) return {};
                const int32_t rounded = int32_t(millionths);
                out.append(reinterpret_cast<const char *>(&rounded), sizeof rounded);
            }
        put(texts.size());
        for (const Text each : texts) text(each);
        return out + lists;
    }

    // Take the vector as it was made in the space of a bundle, serving.vectors.Vector, if it is of this record.
    void within(const pybind11::str &name, const std::optional<pybind11::bytes> &value) {
        if (!sessions.empty()) {
            if (!value) return;
            json::Reader from(*value, made_);
            bool ours = true;
            from.array([&](const size_t at) {
                if (at == 0) ours &= from.integer() == offset;
                else if (at == 1) ours &= from.integer() == as_of;
                else if (at == 2 && ours) read_vector(from);
                else from.skip();
            });
            if (!ours) return;
        } else {
            vector.reset();
        }
        bundle = made_.emplace_back(name);
    }

    const Visit *open(const int64_t timestamp, const int64_t gap) const {
        return !sessions.empty() && sessions.back().last + gap >= timestamp ? &sessions.back() : nullptr;
    }

    // Calls `take(deed)` for what was done in each session that ended not before `since`, open ones too, each once.
    template <typename Take>
    void deeds(const int64_t since, Take take) const {
        const auto all = [&](const Visit &visit) {
            if (visit.last >= since)
                for (const Deed &deed : visit.done) take(deed);
        };
        const auto named = [&](const Visit &one) {
            return std::any_of(visits.begin(), visits.end(), [&](const Visit &v) { return v.first == one.first; });
        };
        for (const Visit &visit : visits) all(visit);
        for (const auto *const many : {&closed, &sessions})
            for (const Visit &visit : *many)
                if (!named(visit)) all(visit);
    }

    Text bundle;
    int64_t as_of = 0, partition = 0, offset = 0;
    std::optional<std::vector<double>> vector;  // the newest open session's, in the space of `bundle`
    std::vector<Visit> visits, closed, sessions;
    bool inside = false;      // the newest action of the newest session was in a search's results
    std::vector<Text> shown;  // what the last search of the newest session showed first

  private:
    static Visit visited(const Session &session) { return {session.first, session.last(), done(session.events)}; }

    template <typename Take>
    void record(const pybind11::bytes &value, Take take) {
        json::Reader from(value, made_);
        from.object([&](const Text key) { take(from, key); });
        from.end();
        const Text all = value;
        if (from.ascii()) return;
        if (PyObject *const decoded = PyUnicode_DecodeUTF8(all.data(), all.size(), nullptr)) return Py_DECREF(decoded);
        PyErr_Clear();
        throw json::Wrong("no UTF-8");
    }
    void read_sessions(json::Reader &from) {
        sessions.clear();
        const std::vector<Session> all = records::sessions(from);
        for (const Session &session : all) sessions.push_back(visited(session));
        if (all.empty()) return;
        for (const Event &event : all.back().events) {
            if (event.tag == 's') shown = event.results;
            if (event.tag == 'a' && event.kind != "rejection") inside = event.search.data();
        }
    }
    void read_vector(json::Reader &from) {
        vector.reset();
        if (from.null()) return;
        vector.emplace();
        from.array([&](size_t) { vector->push_back(from.number()); });
    }

    // All texts are views of these.
    const std::tuple<pybind11::bytes, std::optional<pybind11::bytes>, std::optional<pybind11::bytes>> kept_;
    const std::string pack_;
    std::deque<std::string> made_;
};
