"""What a visitor's deeds come to at a moment: what the features compare each candidate with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models import _kernel
from models.history import Done, done
from models.listings import Listings
from models.sessions import WINDOWS, Action, Session, Shown, Windows
from models.space import Space
from models.types import Types, user_type
from models.visitor import Visitor

Floats = npt.NDArray[np.float32]


@dataclass(slots=True)
class Profile:
    """What is compared with the candidates; K vectors in a space of d dimensions."""

    queries: Floats
    """float32 [K, d]: the session's vector, the last long click's, and each history's centroid in each market,"""
    columns: list[int]
    """and the feature that each is for, which is the greatest of its similarities."""
    type_similarities: Floats
    """float32 [T]: of the user's type to each listing type; empty where it is not known."""
    acted: list[int]
    """The known listings acted on in the open session, by row, the last one last,"""
    counts: list[int]
    """and how often each."""
    inside: bool
    """The newest of these actions was in a search's results."""
    shown: list[int]
    """The rows of what the session's last search showed first; -1 for one that is not known."""
    log_price: float
    """log2 of the geometric mean price of what was acted on; NaN where none is known."""

    @property
    def empty(self) -> bool:
        """Nothing is known that could rank anything."""
        return not (self.columns or self.acted or len(self.type_similarities))


def active(visitor: Visitor, timestamp: int, windows: Windows = WINDOWS) -> Session | None:
    """The session that is open at `timestamp`: the newest, unless its last event is more than the gap before."""
    sessions = visitor.embedding.state.sessions
    return sessions[-1] if sessions and sessions[-1].last >= timestamp - windows.gap else None


def deeds(visitor: Visitor, timestamp: int, windows: Windows = WINDOWS) -> list[tuple[Done, ...]]:
    """What the visitor did in each session that ended within two weeks before `timestamp`, open ones too, each once."""
    since = timestamp - windows.history
    named = set()
    found = []
    if visitor.history is not None:
        for visit in visitor.history.visits:
            named.add(visit.first)
            if visit.last >= since:
                found.append(visit.done)
    for session in (*visitor.closed, *visitor.embedding.state.sessions):
        if session.first not in named and session.last >= since:
            found.append(done(session.events))
    return found


def profile(
    visitor: Visitor,
    timestamp: int,
    *,
    space: Space,
    types: Types,
    listings: Listings,
    vector: tuple[float, ...] | None,
    similar: bool = True,
) -> Profile:
    """The visitor's profile at `timestamp` (ms).

    `vector` is the open session's in `space`, [d], or None. Without `similar` it is as if no listing and no type had
    a vector.
    """
    session = active(visitor, timestamp)
    acted, inside, shown = _in_session(session, space.row) if session is not None else ({}, False, [])
    log_prices = space.log_prices
    known = [price for row in acted if (price := log_prices.item(row)) == price]
    queries, columns, actions, in_range, priced, booked = _kernel.taste(
        deeds(visitor, timestamp) if similar else [],
        space.vectors,
        space.directory,
        space.markets,
        listings.ranges,
        vector if similar and session is not None else None,
    )
    kind = user_type(actions, in_range / priced if priced else math.nan, booked) if actions else ""
    return Profile(
        queries,
        columns,
        types.similarities(kind),
        list(acted),
        list(acted.values()),
        inside,
        shown,
        sum(known) / len(known) if known else math.nan,
    )


def _in_session(session: Session, row: dict[str, int]) -> tuple[dict[int, int], bool, list[int]]:
    """How often each known listing was acted on, the last one last; whether the newest action was in a search's
    results; and what the last search showed."""
    counts: dict[int, int] = {}
    newest: Action | None = None
    shown: Shown | None = None
    for event in session.events:
        if type(event) is Action:
            if event.kind != "rejection":
                newest = event
                at = row.get(event.listing_id)
                if at is not None:
                    counts[at] = counts.pop(at, 0) + 1
        elif type(event) is Shown:
            shown = event
    results = {row.get(listing, -1) for listing in shown.results} if shown is not None else set()
    results.discard(-1)
    return counts, newest is not None and newest.search_id is not None, list(results)
