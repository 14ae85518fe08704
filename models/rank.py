"""The one ranking: what the sidecar answers and what offline evaluation measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from models import features
from models._kernel import Candidates as Candidates  # what candidates are turned into, for others too
from models.bundle import Bundle
from models.events import Id, Money
from models.profile import Profile, profile
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


def look_up(candidates: Candidates | Sequence[Candidate], bundle: Bundle) -> Candidates:
    """The candidates as the kernel has them, with their rows in the bundle.

    Of n candidates `rows` is int64 [n], -1 for an unknown one, `scores` and `prices` are float64 [n], NaN where none is
    said; `once` says that surely each listing stands once, `pinned` that some have a pin.
    """
    given = candidates if isinstance(candidates, Candidates) else Candidates(candidates)
    given.look_up(bundle.space.table)
    return given


@dataclass(slots=True)
class Ranked:
    """A ranking of n candidates, and what became of it."""

    outcome: Outcome
    order: npt.NDArray[np.int64]
    """int64 [n]: indices into the candidates, best first; where not "ranked", the caller's order."""
    scores: npt.NDArray[np.float32] | None
    """float32 [n], in the caller's order; None where not ranked. An unknown listing has its neighbour's above."""
    contributions: npt.NDArray[np.float32] | None = None
    """float32 [n, F], where asked for: rows add up to the scores of known listings, zeros for unknown ones."""


def rank(
    bundle: Bundle,
    visitor: Visitor | None,
    candidates: Candidates | Sequence[Candidate],
    *,
    timestamp: int,
    explain: bool = False,
) -> Ranked:
    """Rank the candidates for the visitor at `timestamp` (ms).

    Candidates are in the caller's order. Known listings are ranked among the places that known listings have
    there; an unknown one keeps its place. Where they are `Candidates`, they were looked up in the bundle.
    """
    given = candidates if isinstance(candidates, Candidates) else look_up(candidates, bundle)
    seen = of(bundle, visitor, timestamp) if visitor is not None else None
    if visitor is None or seen is None or given.unknown == len(given):
        outcome: Outcome = (
            "unknown-user" if visitor is None else "no-session" if seen is None else "no-known-candidates"
        )
        return Ranked(outcome, np.arange(len(given)), None)
    order, scores = bundle.ranker.rank(given, seen, bundle.space)
    parts = None
    if explain:
        values = matrix(bundle, seen, given)
        parts = np.zeros((len(given), len(values)), np.float32)
        parts[given.rows >= 0] = bundle.ranker.contributions(values).T
    return Ranked("ranked", order, scores, parts)


def of(bundle: Bundle, visitor: Visitor, timestamp: int, *, similar: bool = True) -> Profile | None:
    """The visitor's profile in the bundle's space; None where no session is open and nothing known was done in two weeks."""
    made = profile(
        visitor,
        timestamp,
        space=bundle.space,
        types=bundle.types,
        listings=bundle.listings,
        own=visitor.known.bundle == bundle.name,
        similar=similar,
    )
    return None if made.empty and not made.open else made


def matrix(bundle: Bundle, seen: Profile, candidates: Candidates) -> npt.NDArray[np.float32]:
    """The features, float32 [F, k], of the k known ones of the candidates, which were looked up in the bundle."""
    rows = candidates.rows
    places = np.flatnonzero(rows >= 0)
    scores, prices = candidates.scores[places], candidates.prices[places]
    return features.compute(seen, bundle.space, rows[places], places + 1, scores, prices)
