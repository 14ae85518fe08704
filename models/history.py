"""Two weeks of closed sessions, for the features: what was done to which listing, by kind, with the market where the event named one."""

from __future__ import annotations

from typing import Literal

import msgspec

from models import _kernel
from models.events import Version
from models.sessions import WINDOWS, Kept, Session, Windows

LONG_CLICK_SECONDS = _kernel.LONG_CLICK_SECONDS
"""A click is long where the visitor stayed this long (Airbnb, KDD 2018, section 4.4)."""

_encode = msgspec.json.Encoder().encode

Deed = Literal["click", "long-click", "skip", "wishlist", "inquiry", "booking", "rejection"]


class Done(msgspec.Struct, frozen=True, array_like=True):
    """One entry of a history."""

    kind: Deed
    listing_id: str
    timestamp: int
    market: str | None = None


class Visit(msgspec.Struct, frozen=True, array_like=True):
    """A closed session in a history; `first`, its first timestamp, names it among the user's sessions."""

    first: int
    last: int
    done: tuple[Done, ...]


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record of `user-histories`: the user's closed sessions, oldest first."""

    user_id: str
    visits: tuple[Visit, ...] = ()
    version: Version = 1


class ClosedSession(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record of `sessions`: one session, once, when it closed. `events` as in the state."""

    user_id: str
    first: int
    last: int
    events: tuple[Kept, ...]
    version: Version = 1


def dwell(events: tuple[Kept, ...]) -> dict[str, float]:
    """Seconds the visitor stayed with each opened listing, by event id: as a leave says, else until the next event."""
    return _kernel.dwell(_encode(events))


def done(events: tuple[Kept, ...]) -> tuple[Done, ...]:
    """What was done in a session, in the order of its events: a long click stands as a click and as a long click.

    Skips stand there too: listings shown above a click of the same search and not clicked in the session.
    """
    return tuple(Done(*entry) for entry in _kernel.done(_encode(events)))


def append(history: History, session: Session, windows: Windows = WINDOWS) -> History:
    """The history with a session that has just closed: what ended within two weeks before, the newest 500 entries."""
    visits = [visit for visit in history.visits if visit.last >= session.last - windows.history]
    visits.append(Visit(session.first, session.last, done(session.events)))
    room = windows.history_events
    kept: list[Visit] = []
    for visit in reversed(visits):
        if room <= 0:
            break
        entries = visit.done[-room:]
        kept.append(Visit(visit.first, visit.last, entries))
        room -= max(1, len(entries))
    return History(user_id=history.user_id, visits=tuple(reversed(kept)))


def forget(history: History, time: int) -> History:
    """The history without what is dated not later than `time`."""
    visits = [
        Visit(max(visit.first, time + 1), visit.last, tuple(d for d in visit.done if d.timestamp > time))
        for visit in history.visits
        if visit.last > time
    ]
    return History(user_id=history.user_id, visits=tuple(visits))
