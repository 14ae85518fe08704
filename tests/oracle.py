"""The oracle: a partition's records one by one over plain lists, sorted and split at the gaps anew each time. Slow, and obviously right."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from models.bundle import Bundle
from models.events import Event, EventError, Forget, Leave, Search, Tick, decode

MINUTE = 60_000
GAP, GRACE, AHEAD, HISTORY = 30 * MINUTE, 10 * MINUTE, 5 * MINUTE, 14 * 24 * 60 * MINUTE
EVENTS, SEARCHES, RESULTS, HISTORY_EVENTS = 100, 4, 25, 500
LONG_CLICK = 60


@dataclass
class User:
    """All events of the open sessions ever applied, and what came of closed ones."""

    events: list = field(default_factory=list)
    last: int = 0
    mark: int | None = None
    offset: int = -1
    """Of the last record that changed anything of what is open."""
    visits: list[tuple] = field(default_factory=list)


@dataclass
class Oracle:
    watermark: int = 0
    users: dict[str, User] = field(default_factory=dict)
    closed: list[tuple] = field(default_factory=list)
    dead: list[tuple[int, str]] = field(default_factory=list)
    looked: dict[str, int] = field(default_factory=dict)
    """A watermark at which nothing can be due yet of a user. Looking at everybody at each record changes nothing but the time it takes."""

    def apply(self, offset: int, timestamp: int, key: bytes | None, value: bytes | None) -> None:
        try:
            event = decode(value, key)
        except EventError:
            self.dead.append((offset, "unreadable"))
            return
        if event.timestamp > timestamp + AHEAD:
            self.dead.append((offset, "impossible"))
            return
        if event.timestamp < self.watermark - GRACE and not isinstance(event, Forget):
            self.dead.append((offset, "late"))
            return
        if not isinstance(event, Tick):
            self.apply_to_user(offset, event)
        self.watermark = max(self.watermark, min(event.timestamp, timestamp))
        for name in [name for name, due in self.looked.items() if due < self.watermark]:
            self.close(name)

    def apply_to_user(self, offset: int, event: Event) -> None:
        assert not isinstance(event, Tick)
        name = event.user_id
        user = self.users.setdefault(name, User())
        if isinstance(event, Forget):
            user.events = [e for e in user.events if e.timestamp > event.timestamp]
            user.mark = max(user.mark or 0, event.timestamp)
            user.last = user.last if user.last > event.timestamp else 0
            user.visits = [
                forget(visit, event.timestamp) for visit in user.visits if visit[1] > event.timestamp
            ]
            user.offset = offset
        elif user.mark is not None and event.timestamp <= user.mark:
            pass
        elif event.event_id not in {e.event_id for s in self.sessions(user) for e in s[-EVENTS:]}:
            user.events.append(event)
            user.last = max(user.last, event.timestamp)
            user.offset = offset
        self.look(name)

    def sessions(self, user: User) -> list[list]:
        """Sort, and split at the gaps."""
        sessions: list[list] = []
        for event in sorted(user.events, key=lambda e: (e.timestamp, e.event_id)):
            if not sessions or event.timestamp - sessions[-1][-1].timestamp > GAP:
                sessions.append([])
            sessions[-1].append(event)
        return sessions

    def look(self, name: str) -> None:
        user = self.users[name]
        due = [session[-1].timestamp + GAP + GRACE for session in self.sessions(user)]
        due += [user.mark + GRACE] if user.mark is not None else []
        self.looked[name] = min(due, default=user.last + HISTORY + GRACE)

    def close(self, name: str) -> None:
        user = self.users[name]
        for session in self.sessions(user):
            if session[-1].timestamp + GAP + GRACE < self.watermark:
                kept = [brief(e) for e in session[-EVENTS:]]
                first, last = session[0].timestamp, session[-1].timestamp
                self.closed.append((name, first, last, kept))
                user.events = [e for e in user.events if e not in session]
                user.visits = [visit for visit in user.visits if visit[1] >= last - HISTORY]
                user.visits.append((first, last, done(session[-EVENTS:])))
        if user.mark is not None and user.mark + GRACE < self.watermark:
            user.mark = None
        if not user.events and user.mark is None and user.last + HISTORY + GRACE < self.watermark:
            del self.users[name], self.looked[name]
        else:
            self.look(name)

    def open(self) -> dict[str, list]:
        """What is open of each user: first timestamp and kept events of each session."""
        return {
            name: [(s[0].timestamp, [brief(e) for e in s[-EVENTS:]]) for s in self.sessions(user)]
            for name, user in self.users.items()
        }


def brief(event: object) -> tuple:
    """What identifies an event in a session."""
    if isinstance(event, Leave):
        return (event.timestamp, event.event_id, "leave", event.of)
    if isinstance(event, Search):
        return (event.timestamp, event.event_id, "search", None)
    return (event.timestamp, event.event_id, type(event).__name__.lower(), event.listing_id)


def seconds_with(events: list, click: object) -> float:
    """How long the visitor stayed with what a click opened: as a leave says, else until the next event."""
    said = [e.seconds for e in events if isinstance(e, Leave) and e.of == click.event_id]
    if said:
        return said[-1]
    after = [e for e in events[events.index(click) + 1 :] if not isinstance(e, Leave)]
    return (after[0].timestamp - click.timestamp) / 1000 if after else 0.0


def done(events: list) -> list[tuple]:
    """What was done in a closed session: kind, listing, time and market, in no order that matters."""
    actions = [e for e in events if not isinstance(e, Leave | Search)]
    entries = [(type(e).__name__.lower(), e.listing_id, e.timestamp, e.market) for e in actions]
    for event in actions:
        if type(event).__name__ == "Click" and seconds_with(events, event) >= LONG_CLICK:
            entries.append(("long-click", event.listing_id, event.timestamp, event.market))
    acted_on = {e.listing_id for e in actions}
    searches = [e for e in events if isinstance(e, Search)]
    with_results = searches[-SEARCHES:]
    by_name = {search.search_id or search.event_id: search for search in searches}
    for name, search in by_name.items():
        results = [r.listing_id for r in search.results[:RESULTS]] if search in with_results else []
        chosen = [
            results.index(e.listing_id) for e in actions if e.search_id == name and e.listing_id in results
        ]
        for listing in results[: max(chosen, default=0)]:
            if listing not in acted_on:
                entries.append(("skip", listing, search.timestamp, search.market))
    return sorted(entries, key=repr)


def forget(visit: tuple, time: int) -> tuple:
    """A visit without what is dated not later than `time`."""
    first, last, entries = visit
    return (max(first, time + 1), last, [entry for entry in entries if entry[2] > time])


def vector(events: list, bundle: Bundle) -> list[float] | None:
    """The newest session's embedding: a step's vector times its weight, added to what is left of all before."""
    settings, total = bundle.manifest.encoder, [0.0] * bundle.manifest.dimensions
    for event in events:
        if isinstance(event, Leave | Search) or event.listing_id not in bundle.row:
            continue
        kind = type(event).__name__.lower()
        long = kind == "click" and seconds_with(events, event) >= LONG_CLICK
        weight = settings.long_click if long else getattr(settings, kind)
        if weight:
            row = bundle.vectors[bundle.row[event.listing_id]].tolist()
            total = [settings.decay * old + weight * new for old, new in zip(total, row, strict=True)]
    norm = math.sqrt(sum(value * value for value in total))
    return [value / norm for value in total] if norm > 1e-9 else None
