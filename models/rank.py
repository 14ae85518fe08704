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
    return _kernel.gather(candidates, bundle.space.directory, bundle.vectors)


@dataclass(slots=True)
class Ranked:
    """A ranking of n candidates, and what became of it."""

    outcome: Outcome
    order: npt.NDArray[np.int64]
    """int64 [n]: indices into the candidates, best first; where not "ranked", the caller's order."""
    scores: npt.NDArray[np.float32] | None
    """float32 [n], in the caller's order; None where not ranked. An unknown listing has its neighbour's above."""
    known: npt.NDArray[np.bool_]
    """bool [n]: which candidates the bundle knows."""
    contributions: npt.NDArray[np.float32] | None = None
    """float32 [n, F], where asked for: rows add up to the scores of known listings, zeros for unknown ones."""


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
    rows, scores, prices, *_ = gathered or gather(candidates, bundle)
    known = rows >= 0
    seen = of(bundle, visitor, timestamp) if visitor is not None else None
    if visitor is None or seen is None or not known.any():
        outcome: Outcome = (
            "unknown-user" if visitor is None else "no-session" if seen is None else "no-known-candidates"
        )
        return Ranked(outcome, np.arange(len(rows)), None, known)
    order, ranked = bundle.ranker.rank(seen, bundle.space, rows, scores, prices)
    parts = None
    if explain:
        values = matrix(bundle, seen, rows, scores, prices)
        parts = np.zeros((len(rows), len(values)), np.float32)
        parts[known] = bundle.ranker.contributions(values).T
    return Ranked("ranked", order, ranked, known, parts)


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
) -> npt.NDArray[np.float32]:
    """The features, float32 [F, k], of the k known ones of the candidates that `gather` told of."""
    places = np.flatnonzero(rows >= 0)
    return features.compute(seen, bundle.space, rows[places], places + 1, scores[places], prices[places])
