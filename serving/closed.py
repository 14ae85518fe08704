"""Sessions that left a user's state and that the history does not name yet.

A worker publishes the state without the session and the history with it in one transaction, but two topics have no
common order: whichever comes first, a visitor's closed session is not to be missing in between.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from models.history import History
from models.sessions import Session, State

Kept = tuple[Session, ...]

_decoder = msgspec.json.Decoder(Kept)


def closed_key(user: bytes) -> bytes:
    """The store's key of a user's kept sessions."""
    return b"c" + user


def encode(kept: Kept) -> bytes | None:
    """What the store keeps; None, nothing, where there are none."""
    return msgspec.json.encode(kept) if kept else None


def decode(value: bytes | None) -> Kept:
    """The inverse of `encode`. Raises msgspec.MsgspecError where it is of another version."""
    return _decoder.decode(value) if value is not None else ()


def left(kept: Kept, before: State | None, after: State | None) -> Kept:
    """What is to be kept once the state `before` became `after`; None is a user without one."""
    if after is None:
        return ()
    sessions: Iterable[Session] = (*kept, *(before.sessions if before is not None else ()))
    # A session that grew at its beginning, or was joined with another, is still open under another name.
    gone = [s for s in sessions if not any(o.first <= s.first <= o.last for o in after.sessions)]
    mark = after.forgotten
    if mark is not None:
        gone = [
            Session(max(session.first, mark + 1), events)
            for session in gone
            if (events := tuple(event for event in session.events if event.timestamp > mark))
        ]
    return tuple({session.first: session for session in gone}.values())


def unnamed(kept: Kept, history: History | None) -> Kept:
    """The kept sessions that the history neither names nor has moved past."""
    if history is None or not history.visits:
        return kept
    names, newest = {visit.first for visit in history.visits}, history.visits[-1].last
    return tuple(session for session in kept if session.first not in names and session.last > newest)
