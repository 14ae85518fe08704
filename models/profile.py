"""What a visitor's deeds come to at a moment: what the features compare each candidate with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models import _kernel
from models.features import (
    BOOKED,
    CLICKED,
    INQUIRED,
    LAST_LONG_CLICK,
    LONG_CLICKED,
    SIMILARITY,
    SKIPPED,
    WISHLISTED,
)
from models.history import Deed, Done, done
from models.listings import Listings
from models.sessions import WINDOWS, Action, Session, Shown, Windows
from models.space import Space
from models.types import Types, user_type
from models.visitor import Visitor

Floats = npt.NDArray[np.float32]

HISTORIES: dict[Deed, int] = {
    "click": CLICKED,
    "long-click": LONG_CLICKED,
    "skip": SKIPPED,
    "wishlist": WISHLISTED,
    "inquiry": INQUIRED,
    "booking": BOOKED,
}
"""The feature of each history."""


@dataclass(frozen=True, slots=True)
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


def deeds(visitor: Visitor, timestamp: int, windows: Windows = WINDOWS) -> Iterator[Done]:
    """What the visitor did in the sessions that ended within two weeks before `timestamp`, open ones too, each once."""
    since = timestamp - windows.history
    named = set()
    if visitor.history is not None:
        for visit in visitor.history.visits:
            named.add(visit.first)
            if visit.last >= since:
                yield from visit.done
    for session in (*visitor.closed, *visitor.embedding.state.sessions):
        if session.first not in named and session.last >= since:
            yield from done(session.events)


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
    rows, groups, columns, kind = _histories(visitor, timestamp, space, listings)
    log_prices = space.log_prices
    known = [price for row in acted if (price := log_prices.item(row)) == price]
    if not similar:
        rows, groups, columns, kind, vector = [], [], [], "", None
    if session is None:
        vector = None
    queries = _kernel.centroids(space.vectors, rows, groups, len(columns), vector)
    if vector is not None:
        columns.append(SIMILARITY)
    return Profile(
        queries=queries,
        columns=columns,
        type_similarities=types.similarities(kind),
        acted=list(acted),
        counts=list(acted.values()),
        inside=inside,
        shown=shown,
        log_price=sum(known) / len(known) if known else math.nan,
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


def _histories(
    visitor: Visitor, timestamp: int, space: Space, listings: Listings
) -> tuple[list[int], list[int], list[int], str]:
    """The rows in the histories and the group of each, a history in a market, the last long click being one of its own;
    the feature of each group; and the type of the user, "" where nothing was done."""
    row, markets, ranges = space.row.get, space.markets, listings.ranges
    codes: dict[tuple[str, str | None], int] = {}
    rows: list[int] = []
    groups: list[int] = []
    columns: list[int] = []
    last, when = -1, -1
    actions, in_range, priced, booked = 0, 0, 0, False
    for deed in deeds(visitor, timestamp):
        kind, time = deed.kind, deed.timestamp
        at = row(deed.listing_id)
        if at is None or kind == "rejection":
            continue
        key = (kind, deed.market or markets[at])
        group = codes.get(key)
        if group is None:
            group = codes[key] = len(columns)
            columns.append(HISTORIES[kind])
        rows.append(at)
        groups.append(group)
        if kind == "long-click":
            if time >= when:
                last, when = at, time
        elif kind != "skip":
            actions += 1
            booked |= kind == "booking"
            if at < len(ranges) and ranges[at] >= 0:
                in_range += ranges[at]
                priced += 1
    if last >= 0:
        rows.append(last)
        groups.append(len(columns))
        columns.append(LAST_LONG_CLICK)
    mean = in_range / priced if priced else math.nan
    return rows, groups, columns, user_type(actions, mean, booked) if actions else ""
