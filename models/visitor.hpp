// A visitor, as the records say.

#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "json.hpp"
#include "records.hpp"

// What is known of a visitor: their records, and the sessions that left the state before the history names them.
struct Visitor {
    Visitor(const pybind11::bytes &embedding, const std::optional<pybind11::bytes> &history, const std::optional<pybind11::bytes> &kept)
        : kept_{embedding, history, kept} {
        enum { USER = 1, VECTOR = 2, BUNDLE = 4, AS_OF = 8, PARTITION = 16, OFFSET = 32, STATE = 64, ALL = 127 };
        int there = 0;
        record(embedding, [&](json::Reader &from, const Text key) {
            if (key == "user_id") user = from.string(), there |= USER;
            else if (key == "vector") read_vector(from), there |= VECTOR;
            else if (key == "bundle") bundle = from.string(), there |= BUNDLE;
            else if (key == "as_of") as_of = from.integer(), there |= AS_OF;
            else if (key == "partition") partition = from.integer(), there |= PARTITION;
            else if (key == "offset") offset = from.integer(), there |= OFFSET;
            else if (key == "version") records::version(from);
            else if (key == "state") from.object([&](const Text part) {
                if (part == "sessions") sessions = records::sessions(from);
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
            closed = records::sessions(from);
            from.end();
        }
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
        name_ = name;
        bundle = name_;
    }

    const Session *open(const int64_t timestamp, const int64_t gap) const {
        return !sessions.empty() && sessions.back().last() >= timestamp - gap ? &sessions.back() : nullptr;
    }

    // What was done in each session that ended not before `since`, open ones too, each once.
    std::vector<Deed> deeds(const int64_t since) const {
        std::vector<Deed> deeds;
        const auto named = [&](const Session &session) {
            return std::any_of(visits.begin(), visits.end(), [&](const Visit &v) { return v.first == session.first; });
        };
        for (const Visit &visit : visits)
            if (visit.last >= since) deeds.insert(deeds.end(), visit.done.begin(), visit.done.end());
        for (const auto *const many : {&closed, &sessions})
            for (const Session &session : *many)
                if (session.last() >= since && !named(session)) {
                    const std::vector<Deed> more = done(session.events);
                    deeds.insert(deeds.end(), more.begin(), more.end());
                }
        return deeds;
    }

    Text user, bundle;
    int64_t as_of = 0, partition = 0, offset = 0;
    std::optional<std::vector<double>> vector;  // the newest open session's, in the space of `bundle`
    std::vector<Session> sessions, closed;
    std::vector<Visit> visits;

  private:
    template <typename Take>
    void record(const pybind11::bytes &value, Take take) {
        json::Reader from(value, made_);
        from.object([&](const Text key) { take(from, key); });
        from.end();
    }
    void read_vector(json::Reader &from) {
        vector.reset();
        if (from.null()) return;
        vector.emplace();
        from.array([&](size_t) { vector->push_back(from.number()); });
    }

    const std::tuple<pybind11::bytes, std::optional<pybind11::bytes>, std::optional<pybind11::bytes>> kept_;  // all texts are views
    std::string name_;
    std::deque<std::string> made_;
};
