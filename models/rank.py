"""The one ranking: what the sidecar answers and what offline evaluation measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from models import _kernel, features
from models.bundle import Bundle
from models.events import Id, Money
from models.profile import Profile, active, profile
from models.visitor import Visitor

Place = Annotated[int, msgspec.Meta(ge=1, le=1_000)]
Outcome = Literal["ranked", "unknown-user", "no-session", "no-known-candidates"]


class Candidate(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A listing that the caller wants ranked, with the caller's own score and its price now where they are known."""

    listing_id: Id
    score: float | None = None
    price: Money | None = None
    pin: Place | None = None
    """The place in the answer where it must stand, from 1; the ranking itself does not look at it."""


Gathered = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64], bool, bool]


def gather(candidates: Sequence[Candidate], bundle: Bundle) -> Gathered:
    """What is said of n candidates: their rows in the bundle, -1 for an unknown one, their scores and prices, [n], NaN
    where none is said, whether surely each listing stands once, and whether any is pinned."""
    return _kernel.gather(candidates, bundle.row)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A ranking of n candidates, and what became of it."""

    outcome: Outcome
    order: list[int]
    """Indices into the candidates, best first; where not "ranked", the caller's order."""
    scores: list[float] | None
    """By candidate, in the caller's order; None where not ranked. An unknown listing has its neighbour's above."""
    contributions: npt.NDArray[np.float32] | None
    """float32 [n, F], where asked for: rows add up to the scores of known listings, zeros for unknown ones."""
    known: list[bool]
    """Which candidates the bundle knows."""
    stale: bool
    """The vector is of another bundle: ranked without the session's similarity."""


def rank(
    bundle: Bundle,
    visitor: Visitor | None,
    candidates: Sequence[Candidate],
    *,
    timestamp: int,
    explain: bool = False,
    gathered: Gathered | None = None,
) -> Ranked:
    """Rank the candidates for the visitor at `timestamp` (ms).

    Candidates are in the caller's order. Known listings are ranked among the places that known listings have
    there; an unknown one keeps its place. `gathered` is what `gather` gives for them, where that is known already.
    """
    rows, said, prices, *_ = gathered or gather(candidates, bundle)
    found = rows >= 0
    known = found.tolist()
    seen = of(bundle, visitor, timestamp) if visitor is not None else None
    if visitor is None or seen is None or True not in known:
        outcome: Outcome = (
            "unknown-user" if visitor is None else "no-session" if seen is None else "no-known-candidates"
        )
        return Ranked(outcome, list(range(len(known))), None, None, known, False)
    stale = visitor.embedding.bundle != bundle.name
    places = None if all(known) else np.flatnonzero(found)
    values = matrix(bundle, seen, rows, said, prices, places)
    scores = bundle.ranker.scores(values)
    best = np.argsort(-scores, kind="stable")
    parts = bundle.ranker.contributions(values).T if explain else None
    if places is None:
        return Ranked("ranked", best.tolist(), scores.tolist(), parts, known, stale)
    order = np.arange(len(known))
    order[places] = places[best]
    if parts is not None:
        every = np.zeros((len(known), parts.shape[1]), np.float32)
        every[places] = parts
        parts = every
    return Ranked(
        "ranked", order.tolist(), _with_unknown(order.tolist(), places, scores, known), parts, known, stale
    )


def of(bundle: Bundle, visitor: Visitor, timestamp: int, *, similar: bool = True) -> Profile | None:
    """The visitor's profile in the bundle's space; None where no session is open and nothing known was done in two weeks."""
    user = visitor.embedding
    made = profile(
        visitor,
        timestamp,
        space=bundle.space,
        types=bundle.types,
        listings=bundle.listings,
        vector=user.vector if user.bundle == bundle.name else None,
        similar=similar,
    )
    return None if made.empty and active(visitor, timestamp) is None else made


def matrix(
    bundle: Bundle,
    seen: Profile,
    rows: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    prices: npt.NDArray[np.float64],
    places: npt.NDArray[np.int64] | None,
) -> npt.NDArray[np.float32]:
    """The features, float32 [F, n], of the candidates at `places`, counted from 0; of all m of them where None.

    `rows`, `scores` and `prices`, [m], are as `gather` gives them.
    """
    if places is None:
        positions = _POSITIONS[: len(rows)] if len(rows) <= len(_POSITIONS) else np.arange(1, len(rows) + 1)
    else:
        positions, rows, scores, prices = places + 1, rows[places], scores[places], prices[places]
    return features.compute(seen, bundle.space, rows, positions, scores, prices)


_POSITIONS = np.arange(1, 1_025)


def _with_unknown(
    order: list[int], places: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], known: list[bool]
) -> list[float]:
    """Scores of all candidates, such that the ranking is by descending score: an unknown one's is its neighbour's above."""
    every = np.zeros(len(order), np.float32)
    every[places] = scores
    result = every.tolist()
    above = max(scores.tolist())
    for index in order:
        if known[index]:
            above = result[index]
        else:
            result[index] = above
    return result
