"""Listings found by the vector of a visitor's session, for the ranker to choose from."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.rank import Candidate, Candidates
from models.visitor import Visitor
from serving import api

MORE = 4
"""So many times more listings are retrieved than are asked for."""


def possible(bundle: Bundle, visitor: Visitor | None, timestamp: int) -> bool:
    """Whether a session is open at `timestamp` (ms) that has a vector of this bundle."""
    if visitor is None or not visitor.open(timestamp):
        return False
    return visitor.known.bundle == bundle.name and visitor.known.vector is not None


def nearest(
    bundle: Bundle, vector: npt.ArrayLike | None, number: int, market: str | None, exclude: Set[int]
) -> tuple[list[Candidate], npt.NDArray[np.float32]]:
    """At most `number` listings nearest to the vector, and their similarities."""
    rows, similarities = bundle.nearest(
        np.asarray(vector, np.float32), number, market=market, exclude=exclude
    )
    ids = bundle.space.ids
    return [Candidate(ids[row]) for row in rows.tolist()], similarities


def extended(
    bundle: Bundle, visitor: Visitor, request: api.RankRequest, known: Candidates
) -> list[Candidate]:
    """The caller's candidates and the retrieved ones behind them, with a score as low as the lowest of the caller's.

    `known` are the caller's as they were looked up in the bundle.
    """
    given = request.candidates
    rows = frozenset(row for row in known.rows.tolist() if row >= 0)
    found, _ = nearest(bundle, visitor.known.vector, request.extend, request.market, rows)
    scores = [one.score for one in given if one.score is not None]
    lowest = min(scores) if scores and len(scores) == len(given) else None
    return [*given, *(Candidate(one.listing_id, lowest) for one in found)]


def seen(bundle: Bundle, visitor: Visitor) -> frozenset[int]:
    """The rows of what was acted on in the visitor's open sessions."""
    row = bundle.row
    # Another thread may withdraw a listing meanwhile.
    return frozenset(at for listing in visitor.known.acted if (at := row.get(listing)) is not None)
