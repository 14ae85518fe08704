// A user's records, `user-embeddings` and `user-histories`, as models.sessions and models.history say what is in them;
// and what was done in a session.

#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "json.hpp"

using Text = std::string_view;  // null in JSON where it has no data

struct Event {
    char tag;  // of models.sessions.Kept: an (a)ction, (s)hown, or (l)eft
    int64_t timestamp = 0;
    Text id, kind, listing, market, search, of;
    double seconds = 0;
    std::vector<Text> results;
};

struct Session {
    int64_t first = 0;
    std::vector<Event> events;

    int64_t last() const { return events.back().timestamp; }
};

struct Deed {  // models.history.Done
    Text kind, listing;
    int64_t timestamp;
    Text market;
};

struct Visit {
    int64_t first = 0, last = 0;
    std::vector<Deed> done;
};

namespace records {

inline Text text_or_null(json::Reader &from) { return from.null() ? Text() : from.string(); }

inline void version(json::Reader &from) {
    if (from.integer() != 1) throw json::Wrong("of another version than 1, which this program reads");
}

constexpr Text KINDS[] = {"click", "long-click", "skip", "wishlist", "inquiry", "booking", "rejection"};

inline Text kind(json::Reader &from) {
    const Text kind = from.string();
    for (const Text known : KINDS)
        if (kind == known) return known;
    throw json::Wrong("a kind that is not known");
}

// Milliseconds since the epoch, far from where differences of two would not fit.
inline int64_t time(json::Reader &from) {
    const int64_t time = from.integer();
    if (time < -(int64_t(1) << 60) || time > int64_t(1) << 60) throw json::Wrong("no time");
    return time;
}

inline Event event(json::Reader &from) {
    Event event{};
    from.array([&](const size_t at) {
        if (at == 0) {
            const Text tag = from.string();
            if (tag != "a" && tag != "s" && tag != "l") throw json::Wrong("an event of no known kind");
            event.tag = tag[0];
        } else if (at == 1) {
            event.timestamp = time(from);
        } else if (at == 2) {
            event.id = from.string();
        } else if (event.tag == 'a' && at <= 6) {
            Text &field = at == 3 ? event.kind : at == 4 ? event.listing : at == 5 ? event.market : event.search;
            field = at == 3 ? kind(from) : at == 4 ? from.string() : text_or_null(from);
        } else if (event.tag == 's' && at == 3) {
            event.search = from.string();
        } else if (event.tag == 's' && at == 4) {
            event.market = text_or_null(from);
        } else if (event.tag == 's' && at == 5) {
            from.array([&](size_t) { event.results.push_back(from.string()); });
        } else if (event.tag == 'l' && at == 3) {
            event.of = from.string();
        } else if (event.tag == 'l' && at == 4) {
            event.seconds = from.number();
        } else {
            from.skip();
        }
    });
    if (!event.id.data() || (event.tag == 'a' && !event.listing.data()) ||
        (event.tag == 's' && !event.search.data()) || (event.tag == 'l' && !event.of.data()))
        throw json::Wrong("an event without all of its parts");
    return event;
}

inline std::vector<Event> events(json::Reader &from) {
    std::vector<Event> events;
    from.array([&](size_t) { events.push_back(event(from)); });
    return events;
}

inline Session session(json::Reader &from) {
    Session session;
    from.array([&](const size_t at) {
        if (at == 0) session.first = time(from);
        else if (at == 1) session.events = events(from);
        else from.skip();
    });
    if (session.events.empty()) throw json::Wrong("a session without events");
    return session;
}

inline std::vector<Session> sessions(json::Reader &from) {
    std::vector<Session> sessions;
    from.array([&](size_t) { sessions.push_back(session(from)); });
    return sessions;
}

inline Deed deed(json::Reader &from) {
    Deed deed{};
    from.array([&](const size_t at) {
        if (at == 0) deed.kind = kind(from);
        else if (at == 1) deed.listing = from.string();
        else if (at == 2) deed.timestamp = time(from);
        else if (at == 3) deed.market = text_or_null(from);
        else from.skip();
    });
    if (!deed.listing.data()) throw json::Wrong("an entry of a history without all of its parts");
    return deed;
}

inline Visit visit(json::Reader &from) {
    Visit visit;
    from.array([&](const size_t at) {
        if (at == 0) visit.first = time(from);
        else if (at == 1) visit.last = time(from);
        else if (at == 2) from.array([&](size_t) { visit.done.push_back(deed(from)); });
        else from.skip();
    });
    return visit;
}

}  // namespace records

constexpr double LONG_CLICK_SECONDS = 60;  // Airbnb, KDD 2018, section 4.4

// Seconds the visitor stayed with each opened listing, by event id: as a leave says, else until the next event.
inline std::vector<std::pair<Text, double>> dwell(const std::vector<Event> &events) {
    std::vector<std::pair<Text, double>> seconds;
    const auto set = [&](const Text id, const double value) {
        for (auto &[known, old] : seconds)
            if (known == id) {
                old = value;
                return;
            }
        seconds.emplace_back(id, value);
    };
    const Event *opened = nullptr;
    for (const Event &event : events) {
        if (event.tag == 'l') continue;
        if (opened) set(opened->id, double(event.timestamp - opened->timestamp) / 1000);
        opened = event.tag == 'a' && event.kind == "click" ? &event : nullptr;
    }
    for (const Event &event : events)
        if (event.tag == 'l') set(event.of, event.seconds);
    return seconds;
}

// Listings shown above a click of the same search and not clicked in the session, each with its search.
inline void skipped(const std::vector<Event> &events, std::vector<Deed> &out) {
    struct Depth { const Event *shown; size_t deepest; };
    std::vector<Depth> depths;
    for (const Event &action : events) {
        if (action.tag != 'a' || !action.search.data()) continue;
        const Event *shown = nullptr;
        for (const Event &event : events)
            if (event.tag == 's' && event.search == action.search) shown = &event;
        if (!shown) continue;
        const auto found = std::find(shown->results.begin(), shown->results.end(), action.listing);
        if (found == shown->results.end()) continue;
        const size_t at = size_t(found - shown->results.begin());
        const auto known =
            std::find_if(depths.begin(), depths.end(), [=](const Depth &depth) { return depth.shown == shown; });
        if (known == depths.end()) depths.push_back({shown, at});
        else known->deepest = std::max(known->deepest, at);
    }
    for (const auto &[shown, deepest] : depths)
        for (size_t at = 0; at < deepest; ++at) {
            const Text listing = shown->results[at];
            const auto is = [=](const Event &event) { return event.tag == 'a' && event.listing == listing; };
            if (std::none_of(events.begin(), events.end(), is))
                out.push_back({"skip", listing, shown->timestamp, shown->market});
        }
}

// What was done in a session, in the order of its events: a long click stands as a click and as a long click.
inline std::vector<Deed> done(const std::vector<Event> &events) {
    std::vector<Deed> deeds;
    const auto seconds = dwell(events);
    for (const Event &event : events) {
        if (event.tag != 'a') continue;
        deeds.push_back({event.kind, event.listing, event.timestamp, event.market});
        if (event.kind != "click") continue;
        for (const auto &[id, stayed] : seconds)
            if (id == event.id && stayed >= LONG_CLICK_SECONDS)
                deeds.push_back({"long-click", event.listing, event.timestamp, event.market});
    }
    skipped(events, deeds);
    std::stable_sort(deeds.begin(), deeds.end(),
                     [](const Deed &one, const Deed &other) { return one.timestamp < other.timestamp; });
    return deeds;
}
