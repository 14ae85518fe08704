"""Session windows: `apply` takes a user's state and one event and gives the new state. Time is always an argument.

A session is the user's events with gaps of at most 30 minutes, ordered by (`timestamp`, `event_id`). Whatever the
order in which on-time events arrive, the state is what sorting them and splitting at the gaps would give; see
docs/design.md for the rules. Times are milliseconds.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal

import msgspec

from models.events import (
    Booking,
    Click,
    Event,
    Forget,
    Impossible,
    Inquiry,
    Late,
    Leave,
    Rejection,
    Search,
    UserEvent,
    Version,
    Wishlist,
)

MINUTE = 60_000
DAY = 24 * 60 * MINUTE

Kind = Literal["click", "wishlist", "inquiry", "booking", "rejection"]
KINDS: dict[type, Kind] = {
    Click: "click",
    Wishlist: "wishlist",
    Inquiry: "inquiry",
    Booking: "booking",
    Rejection: "rejection",
}


@dataclass(frozen=True, slots=True)
class Windows:
    """The settings of the windows, in milliseconds and counts."""

    gap: int = 30 * MINUTE
    grace: int = 10 * MINUTE
    ahead: int = 5 * MINUTE
    """How far an event may be dated after its record's Kafka timestamp."""
    events: int = 100
    """A session keeps its newest so many events."""
    searches: int = 4
    """... and the results of its newest so many searches,"""
    results: int = 25
    """the first so many of each."""
    history: int = 14 * DAY
    history_events: int = 500


WINDOWS = Windows()


class Action(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    """Something done to a listing, as it stands in a session."""

    timestamp: int
    event_id: str
    kind: Kind
    listing_id: str
    market: str | None = None
    search_id: str | None = None


class Shown(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """A search in a session and, of the newest few, the listings it showed first."""

    timestamp: int
    event_id: str
    search_id: str
    market: str | None = None
    results: tuple[str, ...] = ()


class Left(msgspec.Struct, frozen=True, array_like=True, tag="l"):
    """A leave, as it stands in a session: the visitor was `seconds` with what the event `of` opened."""

    timestamp: int
    event_id: str
    of: str
    seconds: float


Kept = Action | Shown | Left


class Session(msgspec.Struct, frozen=True, array_like=True):
    """An open session. `first` is the timestamp of its first event, kept when that event is no longer."""

    first: int
    events: tuple[Kept, ...]

    @property
    def last(self) -> int:
        """The timestamp of the newest event."""
        return self.events[-1].timestamp


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a user: ids, kinds and times only, nothing computed from a bundle."""

    version: Version = 1
    sessions: tuple[Session, ...] = ()
    """Open sessions, oldest first; between two lies more than the gap."""
    last: int = 0
    """The greatest timestamp of any event applied and not forgotten, 0 where none is left: a user silent for two weeks
    after it is dropped."""
    forgotten: int | None = None
    """A `forget`'s timestamp: events not newer are dropped until they would be late anyway."""


class UserEmbedding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record of `user-embeddings`. All but `state` is public."""

    user_id: str
    vector: tuple[float, ...] | None
    """The newest open session's embedding in the space of `bundle`; null where none is open or nothing known was clicked."""
    bundle: str
    as_of: int
    """The timestamp of the newest event in it, or of the `forget` that left nothing."""
    partition: int
    offset: int
    """Of the user's own last applied record on `clicks`."""
    state: State
    version: Version = 1


def order(event: Kept) -> tuple[int, str]:
    """The order inside a session."""
    return (event.timestamp, event.event_id)


def check(event: Event, record_timestamp: int, watermark: int, windows: Windows = WINDOWS) -> None:
    """Raise Impossible or Late where `event` can't be applied to a partition that has come to `watermark`."""
    if event.timestamp > record_timestamp + windows.ahead:
        ahead = event.timestamp - record_timestamp
        raise Impossible(f"dated {ahead} ms after its record's Kafka timestamp - at `$.timestamp`")
    if event.timestamp < watermark - windows.grace and not isinstance(event, Forget):
        behind = watermark - event.timestamp
        raise Late(f"{behind} ms behind the partition's watermark - at `$.timestamp`")


def deadline(state: State, windows: Windows = WINDOWS) -> int:
    """The watermark after which something is due for this user: a session closes, or the state is dropped."""
    due = []
    if state.sessions:
        due.append(state.sessions[0].last + windows.gap + windows.grace)
    if state.forgotten is not None:
        due.append(state.forgotten + windows.grace)
    return min(due) if due else state.last + windows.history + windows.grace


def advance(
    state: State, watermark: int, windows: Windows = WINDOWS
) -> tuple[State | None, tuple[Session, ...]]:
    """The state once the partition has come to `watermark` (None where the user is dropped), and the sessions that closed."""
    if (
        state.forgotten is None
        and state.sessions
        and state.sessions[0].events[-1].timestamp + windows.gap + windows.grace >= watermark
    ):
        return state, ()  # as is so nearly always
    closing = 0
    while (
        closing < len(state.sessions)
        and state.sessions[closing].last + windows.gap + windows.grace < watermark
    ):
        closing += 1
    closed, sessions = state.sessions[:closing], state.sessions[closing:]
    forgotten = state.forgotten
    if forgotten is not None and forgotten + windows.grace < watermark:
        forgotten = None
    silent = not state.last or state.last + windows.history + windows.grace < watermark
    if not sessions and forgotten is None and silent:
        return None, closed
    if not closed and forgotten == state.forgotten:
        return state, ()
    return State(sessions=sessions, last=state.last, forgotten=forgotten), closed


def apply(state: State, event: UserEvent, windows: Windows = WINDOWS) -> State:
    """The state after `event`, which is on time and of this user. The very same object where nothing changes."""
    if isinstance(event, Forget):
        return _forget(state, event.timestamp)
    if state.forgotten is not None and event.timestamp <= state.forgotten:
        return state
    event_id = event.event_id
    for session in state.sessions:
        for kept in session.events:
            if kept.event_id == event_id:
                return state
    return State(
        sessions=_insert(state.sessions, _keep(event, windows), windows),
        last=max(state.last, event.timestamp),
        forgotten=state.forgotten,
    )


def _keep(event: Search | Click | Leave | Wishlist | Inquiry | Booking | Rejection, windows: Windows) -> Kept:
    if isinstance(event, Search):
        shown = tuple([result.listing_id for result in event.results[: windows.results]])
        name = event.search_id or event.event_id
        return Shown(event.timestamp, event.event_id, name, event.market, shown)
    if isinstance(event, Leave):
        return Left(event.timestamp, event.event_id, event.of, event.seconds)
    return Action(
        event.timestamp, event.event_id, KINDS[type(event)], event.listing_id, event.market, event.search_id
    )


def _insert(sessions: tuple[Session, ...], event: Kept, windows: Windows) -> tuple[Session, ...]:
    """Join the session within whose gap the event lies, join the two it lies between, or open one."""
    time = event.timestamp
    if sessions:
        newest = sessions[-1]
        events = newest.events
        last = events[-1]
        # Nearly every event comes last, and nothing must make room for it.
        if (
            0 <= time - last.timestamp <= windows.gap
            and (time > last.timestamp or event.event_id > last.event_id)
            and len(events) < windows.events
            and (type(event) is not Shown or sum([type(e) is Shown for e in events]) < windows.searches)
        ):
            return (*sessions[:-1], Session(newest.first, (*events, event)))
    near = [s for s in sessions if s.first - windows.gap <= time <= s.last + windows.gap]
    older = tuple(s for s in sessions if s.last + windows.gap < time)
    newer = tuple(s for s in sessions if time < s.first - windows.gap)
    first = min([time, *(s.first for s in near)])
    joined = [kept for session in near for kept in session.events]
    joined.insert(bisect_left(joined, order(event), key=order), event)
    return (*older, Session(first, _newest(joined, windows)), *newer)


def _newest(events: list[Kept], windows: Windows) -> tuple[Kept, ...]:
    """The events a session keeps. A newest-so-many of a union never brings back what one part dropped, so order of arrival can't matter."""
    events = events[-windows.events :]
    searches = [at for at, event in enumerate(events) if isinstance(event, Shown)]
    for at in searches[: -windows.searches]:
        event = events[at]
        if isinstance(event, Shown) and event.results:
            events[at] = Shown(event.timestamp, event.event_id, event.search_id, event.market)
    return tuple(events)


def _forget(state: State, time: int) -> State:
    """Drop what is dated not later than `time`, and mark it."""
    sessions = []
    for session in state.sessions:
        events = tuple(event for event in session.events if event.timestamp > time)
        if events:
            first = session.first if session.first > time else events[0].timestamp
            sessions.append(Session(first, events))
    mark = max(time, state.forgotten or 0)
    # With nothing left, the state is dropped as soon as the mark may go.
    last = state.last if state.last > time else 0
    return State(sessions=tuple(sessions), last=last, forgotten=mark)
