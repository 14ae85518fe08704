"""The answers of the API: what is known of the user, ranked by the one function of `models.rank`."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models import rank as ranking
from models.bundle import Bundle
from models.features import NAMES
from models.rank import Candidate
from models.sessions import WINDOWS, Action, Kept, Left, Session, Shown, UserEmbedding
from models.visitor import Visitor
from serving import api
from serving.problems import Refused
from serving.shadow import Shadow
from serving.states import States, Unreadable

log = logging.getLogger("insession.ranking")

RETRIEVED = 4
"""So many times more listings are retrieved than are asked for, for the ranker to choose from."""


@dataclass(slots=True)
class Ranking:
    """What answers are made from. `bundle` may be another one for the next request."""

    bundle: Bundle
    states: States
    shadow: Shadow | None = None

    async def rank(self, request: api.RankRequest, now: int, begun: float) -> api.RankResponse:
        """The candidates, ranked. `now` is the clock in ms, `begun` when the request came, as time.perf_counter has it."""
        _each_once(request.candidates)
        bundle = self.bundle
        timestamp = now if request.timestamp is None else request.timestamp
        visitor, outcome = await self._visitor(request, bundle.name, begun)
        user = visitor.embedding if visitor is not None else None
        ranked = None
        if outcome is None:
            ranked, outcome = _ranked(bundle, visitor, request.candidates, timestamp, request.explain)
        if ranked is not None and ranked.scores is not None:
            results = _in_order(request.candidates, ranked)
            if self.shadow is not None and visitor is not None:
                self.shadow.offer(visitor, request.candidates, timestamp, ranked.order)
        else:
            rows = bundle.row
            results = [
                api.RankedListing(
                    listing_id=candidate.listing_id,
                    position=place,
                    caller_position=place,
                    known=candidate.listing_id in rows,
                )
                for place, candidate in enumerate(request.candidates, 1)
            ]
        return api.RankResponse(
            rank_id=secrets.token_hex(8),
            bundle=bundle.name,
            outcome=outcome,
            state=_state(user, timestamp),
            stale=user is not None and user.bundle != bundle.name,
            took_ms=_since(begun),
            results=results,
        )

    async def recommend(self, request: api.RecommendRequest, now: int, begun: float) -> api.RecommendResponse:
        """Listings near the session's vector, ranked."""
        bundle = self.bundle
        timestamp = now if request.timestamp is None else request.timestamp
        visitor, outcome = await self._visitor(request, bundle.name, begun)
        user = visitor.embedding if visitor is not None else None
        stale = user is not None and user.bundle != bundle.name
        results: list[api.Recommended] = []
        if outcome is None and (user is None or ranking.active(user, timestamp) is None):
            outcome = "unknown-user" if user is None else "no-session"
        elif outcome is None and user is not None and (user.vector is None or stale):
            outcome = "no-vector"
        if outcome is None and user is not None and user.vector is not None:
            seen = _seen(user, bundle) if request.exclude_seen else frozenset()
            rows, similarities = bundle.nearest(
                np.array(user.vector, np.float32), RETRIEVED * request.k, market=request.market, exclude=seen
            )
            candidates = [Candidate(bundle.space.ids[row]) for row in rows.tolist()]
            ranked, outcome = _ranked(bundle, visitor, candidates, timestamp, request.explain)
            if ranked is not None and ranked.scores is not None:
                results = _recommended(candidates, ranked, similarities, request.k)
        assert outcome is not None
        return api.RecommendResponse(
            rank_id=secrets.token_hex(8),
            bundle=bundle.name,
            outcome=outcome,
            state=_state(user, timestamp),
            stale=stale,
            took_ms=_since(begun),
            results=results,
        )

    def similar(self, listing_id: str, k: int, market: str | None, begun: float) -> api.SimilarResponse:
        """The listings nearest to a listing."""
        bundle = self.bundle
        row = bundle.row.get(listing_id)
        if row is None:
            raise Refused(404, "the bundle does not know this listing", field="listing_id")
        results = []
        vector = bundle.vectors[row]
        if vector.any():
            rows, similarities = bundle.nearest(vector, k, market=market, exclude={row})
            found = zip(rows.tolist(), similarities.tolist(), strict=True)
            results = [
                api.Similar(listing_id=bundle.space.ids[near], position=place, similarity=similarity)
                for place, (near, similarity) in enumerate(found, 1)
            ]
        return api.SimilarResponse(
            listing_id=listing_id, bundle=bundle.name, results=results, took_ms=_since(begun)
        )

    def user(self, user_id: str, now: int) -> api.UserResponse:
        """What is known of a user."""
        try:
            visitor = self.states.visitor(user_id, self.bundle.name)
        except Unreadable as error:
            raise Refused(500, f"the user's state can't be read: {error}") from None
        user = visitor.embedding if visitor is not None else None
        if user is None or not (
            user.state.sessions or user.state.last
        ):  # or only that the user was forgotten
            raise Refused(404, "nothing is known of this user", field="user_id")
        applied = self.states.applied.get(user.partition)
        state = _state(user, now)
        assert state is not None
        return api.UserResponse(
            user_id=user.user_id,
            vector=user.vector,
            bundle=user.bundle,
            state=state,
            applied=api.Applied(next_offset=applied.next_offset, watermark=applied.watermark)
            if applied
            else None,
            sessions=[_visit(session, now) for session in user.state.sessions],
        )

    async def _visitor(
        self, request: api.RankRequest | api.RecommendRequest, bundle: str, begun: float
    ) -> tuple[Visitor | None, api.Outcome | None]:
        """The user's records once they include what was asked for, or why there is none to answer from."""
        partitions = self.states.partitions
        if request.partition is not None and partitions and request.partition >= partitions:
            raise Refused(400, f"clicks has the partitions 0 to {partitions - 1}", field="$.partition")
        try:
            visitor = self.states.visitor(request.user_id, bundle)
            if request.min_offset is None:
                return visitor, None
            partition = request.partition
            if partition is None:
                partition = (
                    visitor.embedding.partition
                    if visitor is not None
                    else self.states.partition(request.user_id)
                )
            left = request.deadline_ms / 1000 - (time.perf_counter() - begun)
            if partition is None or not await self.states.reached(partition, request.min_offset, left):
                return visitor, "deadline"
            return self.states.visitor(request.user_id, bundle), None
        except Unreadable as error:
            log.warning("a user's state can't be read: %s", error)
            return None, "unreadable-state"


def _each_once(candidates: Sequence[Candidate]) -> None:
    if len({candidate.listing_id for candidate in candidates}) < len(candidates):
        seen: set[str] = set()
        for at, candidate in enumerate(candidates):
            if candidate.listing_id in seen:
                field = f"$.candidates[{at}].listing_id"
                raise Refused(400, "this listing stands among the candidates already", field=field)
            seen.add(candidate.listing_id)


def _ranked(
    bundle: Bundle,
    visitor: Visitor | None,
    candidates: Sequence[Candidate],
    timestamp: int,
    explain: bool,
) -> tuple[ranking.Ranked | None, api.Outcome]:
    """The ranking; where the model fails, a list in the caller's order is better than an error."""
    try:
        ranked = ranking.rank(bundle, visitor, candidates, timestamp=timestamp, explain=explain)
    except Exception:
        log.exception("ranking failed")
        return None, "failed"
    return ranked, ranked.outcome


def _in_order(candidates: Sequence[Candidate], ranked: ranking.Ranked) -> list[api.RankedListing]:
    scores, known = ranked.scores, ranked.known
    assert scores is not None
    parts = _parts(ranked.contributions)
    return [
        api.RankedListing(
            listing_id=candidates[at].listing_id,
            position=place,
            caller_position=at + 1,
            score=scores[at],
            known=known[at],
            contributions=parts[at] if parts is not None and known[at] else None,
        )
        for place, at in enumerate(ranked.order, 1)
    ]


def _recommended(
    candidates: Sequence[Candidate],
    ranked: ranking.Ranked,
    similarities: npt.NDArray[np.float32],
    k: int,
) -> list[api.Recommended]:
    scores = ranked.scores
    assert scores is not None
    parts = _parts(ranked.contributions)
    return [
        api.Recommended(
            listing_id=candidates[at].listing_id,
            position=place,
            similarity=float(similarities[at]),
            score=scores[at],
            contributions=parts[at] if parts is not None else None,
        )
        for place, at in enumerate(ranked.order[:k], 1)
    ]


def _parts(contributions: npt.NDArray[np.float32] | None) -> list[dict[str, float]] | None:
    """By candidate, what each feature adds to its score."""
    if contributions is None:
        return None
    return [dict(zip(NAMES, row, strict=True)) for row in contributions.tolist()]


def _seen(user: UserEmbedding, bundle: Bundle) -> frozenset[int]:
    """The rows of what was acted on in the user's open sessions."""
    listings = {
        event.listing_id
        for session in user.state.sessions
        for event in session.events
        if isinstance(event, Action)
    }
    row = bundle.row
    # Another thread may withdraw a listing meanwhile.
    return frozenset(at for listing in listings if (at := row.get(listing)) is not None)


def _state(user: UserEmbedding | None, timestamp: int) -> api.UserState | None:
    if user is None:
        return None
    return api.UserState(
        partition=user.partition,
        offset=user.offset,
        as_of=user.as_of,
        age_ms=max(0, timestamp - user.as_of),
    )


def _visit(session: Session, now: int) -> api.Visit:
    return api.Visit(
        first=session.first,
        last=session.last,
        active=session.last >= now - WINDOWS.gap,
        events=[_event(event) for event in session.events],
    )


def _event(event: Kept) -> api.Event:
    match event:
        case Action():
            return api.Event(
                type=event.kind,
                timestamp=event.timestamp,
                event_id=event.event_id,
                listing_id=event.listing_id,
                market=event.market,
                search_id=event.search_id,
            )
        case Shown():
            return api.Event(
                type="search",
                timestamp=event.timestamp,
                event_id=event.event_id,
                search_id=event.search_id,
                market=event.market,
                results=list(event.results),
            )
        case Left():
            return api.Event(
                type="leave",
                timestamp=event.timestamp,
                event_id=event.event_id,
                of=event.of,
                seconds=event.seconds,
            )


def _since(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1000, 3)
