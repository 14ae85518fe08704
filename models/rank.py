"""The one ranking: what the sidecar answers and what offline evaluation measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from models import features
from models.bundle import Bundle
from models.events import Id, Money
from models.ranker import total
from models.sessions import WINDOWS, Session, UserEmbedding, Windows
from models.visitor import Visitor

Place = Annotated[int, msgspec.Meta(ge=1, le=1_000)]
Outcome = Literal["ranked", "unknown-user", "no-session", "no-known-candidates"]


class Candidate(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A listing that the caller wants ranked, with the caller's own score and price of it where there are any."""

    listing_id: Id
    score: float | None = None
    price: Money | None = None
    pin: Place | None = None
    """The place in the answer where it must stand, from 1; the ranking itself does not look at it."""


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
    """The vector is of another bundle: ranked without similarity."""


def active(user: UserEmbedding, timestamp: int, windows: Windows = WINDOWS) -> Session | None:
    """The session that is open at `timestamp`: the newest, unless its last event is more than the gap before."""
    sessions = user.state.sessions
    return sessions[-1] if sessions and sessions[-1].last >= timestamp - windows.gap else None


def rank(
    bundle: Bundle,
    visitor: Visitor | None,
    candidates: Sequence[Candidate],
    *,
    timestamp: int,
    explain: bool = False,
) -> Ranked:
    """Rank the candidates for the visitor at `timestamp` (ms).

    Candidates are in the caller's order. Known listings are ranked among the places that known listings have
    there; an unknown one keeps its place.
    """
    get = bundle.row.get
    rows = np.array([get(candidate.listing_id, -1) for candidate in candidates], np.int64)
    found = rows >= 0
    known = found.tolist()
    user = visitor.embedding if visitor is not None else None
    session = active(user, timestamp) if user is not None else None
    if user is None or session is None or not any(known):
        outcome: Outcome = (
            "unknown-user" if user is None else "no-session" if session is None else "no-known-candidates"
        )
        return Ranked(outcome, list(range(len(known))), None, None, known, False)
    stale = user.bundle != bundle.name
    parts = bundle.ranker.contributions(matrix(bundle, user, session, candidates, rows))
    scores = total(parts)
    best = np.argsort(-scores, kind="stable")
    if len(best) == len(known):
        return Ranked("ranked", best.tolist(), scores.tolist(), parts if explain else None, known, stale)
    places = np.flatnonzero(found)
    order = np.arange(len(known))
    order[places] = places[best]
    every = np.zeros((len(known), parts.shape[1]), np.float32)
    every[places] = parts
    return Ranked(
        "ranked",
        order.tolist(),
        _with_unknown(order.tolist(), places, scores, known),
        every if explain else None,
        known,
        stale,
    )


def matrix(
    bundle: Bundle,
    user: UserEmbedding,
    session: Session,
    candidates: Sequence[Candidate],
    rows: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """The features of the known candidates, float32 [n, F]; `rows` are the candidates', [m], -1 where unknown."""
    places = np.flatnonzero(rows >= 0)
    known = user.vector is not None and user.bundle == bundle.name
    return features.compute(
        rows=rows[places],
        positions=places + 1,
        vectors=bundle.vectors,
        row=bundle.row,
        session=session,
        vector=np.array(user.vector, np.float32) if known else None,
        scores=_caller_scores(candidates, places),
    )


def _caller_scores(candidates: Sequence[Candidate], places: npt.NDArray[np.int64]) -> list[float] | None:
    """The caller's scores of the candidates at `places`; None unless every candidate has one."""
    if candidates[0].score is None:
        return None
    scores = [candidate.score for candidate in candidates if candidate.score is not None]
    return [scores[place] for place in places] if len(scores) == len(candidates) else None


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
