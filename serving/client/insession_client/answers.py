"""What comes back."""

from __future__ import annotations

import secrets
import time
from typing import Any

import msgspec

from .questions import Candidate, Request, own_order

AWAY = "away"


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer was made from: the user's last applied event, and how old that is."""

    partition: int
    offset: int
    as_of: int
    age_ms: int


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """A listing in its place. `caller_position` is None where the sidecar retrieved it."""

    listing_id: str
    position: int
    caller_position: int | None = None
    score: float | None = None
    known: bool = True
    retrieved: bool = False
    contributions: dict[str, float] | None = None


class Recommended(msgspec.Struct, frozen=True, kw_only=True):
    """A retrieved listing."""

    listing_id: str
    position: int
    similarity: float
    score: float
    contributions: dict[str, float] | None = None


class Similar(msgspec.Struct, frozen=True, kw_only=True):
    """A listing near the one asked for."""

    listing_id: str
    position: int
    similarity: float
    score: float | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What every ranking says of itself. `outcome` is "ranked", one of the sidecar's others, or "away"."""

    outcome: str
    rank_id: str | None = None
    bundle: str | None = None
    variant: str = "default"
    propensity: float = 1.0
    state: State | None = None
    stale: bool = False
    took_ms: float = 0.0

    @property
    def ranked(self) -> bool:
        """Whether it is by the visitor's session, and not the caller's own."""
        return self.outcome == "ranked"

    def as_ranking(self) -> dict[str, Any] | None:
        """The `ranking` of the next `search` event; None where no sidecar answered."""
        if self.rank_id is None:
            return None
        return {
            "rank_id": self.rank_id,
            "bundle": self.bundle,
            "variant": self.variant,
            "propensity": self.propensity,
        }


class RankAnswer(Answer, frozen=True, kw_only=True):
    """As it comes over the wire."""

    results: list[Ranked] = []


class Ranking(RankAnswer, frozen=True, kw_only=True):
    """A list, best first; with any other outcome than "ranked", in the caller's order."""

    user_id: str
    given: tuple[Candidate, ...]
    """The candidates, as they were given."""

    @property
    def listing_ids(self) -> list[str]:
        """The listings, best first."""
        return [result.listing_id for result in self.results]

    def event(
        self,
        search_id: str | None = None,
        *,
        timestamp: int | None = None,
        query: str | None = None,
        market: str | None = None,
        shown: int | None = None,
    ) -> dict[str, Any]:
        """The `search` event to put on `clicks`, as JSON, under the user id as its key.

        `timestamp` is in ms, now where absent; `shown` is how many of the listings the visitor was shown.
        """
        name = search_id or secrets.token_hex(8)
        given = {candidate.listing_id: candidate for candidate in self.given}
        event: dict[str, Any] = {
            "type": "search",
            "event_id": name,
            "search_id": name,
            "user_id": self.user_id,
            "timestamp": time.time_ns() // 1_000_000 if timestamp is None else timestamp,
            "query": query,
            "market": market,
            "results": [_result(each, given.get(each.listing_id)) for each in self.results[:shown]],
            "ranking": self.as_ranking(),
        }
        return {key: value for key, value in event.items() if value is not None}


class Recommendation(Answer, frozen=True, kw_only=True):
    """Retrieved listings, best first; none unless ranked."""

    results: list[Recommended] = []


class SimilarListings(Answer, frozen=True, kw_only=True):
    """Near listings; `outcome` is the sidecar's, "unknown-listing" where the bundle has none such, or "away"."""

    listing_id: str
    outcome: str = "nearest"
    results: list[Similar] = []


def ranking(request: Request, answer: RankAnswer) -> Ranking:
    """The answer to this request. Raises ValueError where it is none: a candidate is missing, or another came in."""
    listed = {result.listing_id for result in answer.results}
    added = len(answer.results) - len(request.candidates)
    if (
        len(listed) < len(answer.results)
        or not 0 <= added <= request.extend
        or not listed.issuperset([candidate.listing_id for candidate in request.candidates])
    ):
        raise ValueError("its listings are not the candidates")
    return Ranking(
        outcome=answer.outcome,
        rank_id=answer.rank_id,
        bundle=answer.bundle,
        variant=answer.variant,
        propensity=answer.propensity,
        state=answer.state,
        stale=answer.stale,
        took_ms=answer.took_ms,
        results=answer.results,
        user_id=request.user_id,
        given=request.candidates,
    )


def away(request: Request) -> Ranking:
    """The caller's order, where no sidecar answered."""
    given = request.candidates
    results = [
        Ranked(listing_id=given[at].listing_id, position=place, caller_position=at + 1)
        for place, at in enumerate(own_order(given), 1)
    ]
    return Ranking(outcome=AWAY, results=results, user_id=request.user_id, given=given)


def _result(ranked: Ranked, given: Candidate | None) -> dict[str, Any]:
    result = {
        "listing_id": ranked.listing_id,
        "position": ranked.position,
        "caller_position": ranked.caller_position,
        "caller_score": given.score if given else None,
        "price": given.price if given else None,
    }
    return {key: value for key, value in result.items() if value is not None}
