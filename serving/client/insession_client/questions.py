"""What is asked."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import msgspec

from .problems import Problem, Refused


class Candidate(msgspec.Struct, frozen=True, omit_defaults=True):
    """A listing to rank, with the caller's own score and the price shown, where there are any.

    `pin` is the position it must have in the answer, from 1.
    """

    listing_id: str
    score: float | None = None
    price: float | None = None
    pin: int | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One list to rank: the arguments of `rank`, for `rank_batch`."""

    user_id: str
    candidates: tuple[Candidate, ...]
    timestamp: int | None = None
    min_offset: int | None = None
    partition: int | None = None
    deadline_ms: int | None = None
    explain: bool = False
    market: str | None = None
    extend: int = 0
    diversity: float = 0.0


def candidates(given: Sequence[Candidate | str]) -> tuple[Candidate, ...]:
    """Those given as ids too."""
    return tuple([each if isinstance(each, Candidate) else Candidate(each) for each in given])


def check(request: Request, place: str = "$") -> None:
    """Raise Refused where a score or a price is NaN or infinite, which JSON can't say: null would be sent."""
    if isfinite(sum([(each.score or 0.0) + (each.price or 0.0) for each in request.candidates])):
        return  # none of them: one sum is sooner made than each is looked at
    for at, candidate in enumerate(request.candidates):
        for name, value in (("score", candidate.score), ("price", candidate.price)):
            if value is not None and not isfinite(value):
                raise Refused(
                    Problem(
                        status=400,
                        type="urn:insession:problem:invalid-request",
                        detail=f"{value} is no number",
                        field=f"{place}.candidates[{at}].{name}",
                    )
                )


def own_order(given: Sequence[Candidate]) -> Sequence[int]:
    """Indices in the caller's order, the pinned ones in their places, as a sidecar has it; a pin that can't be kept is none."""
    places: dict[int, int] = {}
    for at, candidate in enumerate(given):
        if candidate.pin is not None and 1 <= candidate.pin <= len(given):
            places.setdefault(candidate.pin, at)
    if not places:
        return range(len(given))
    pinned = set(places.values())
    others = iter([at for at in range(len(given)) if at not in pinned])
    return [places[place] if place in places else next(others) for place in range(1, len(given) + 1)]
