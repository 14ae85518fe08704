"""The answers of the API: what is known of the user, ranked by the one function of `models.rank`."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from urllib.parse import quote, urlencode

import msgspec
import numpy as np
import numpy.typing as npt

from models import rank as ranking
from models.bundle import Bundle
from models.diversity import diversify
from models.features import NAMES
from models.profile import active
from models.rank import Candidate, Ranked
from models.sessions import WINDOWS, Action, Kept, Left, Session, Shown, UserEmbedding
from models.visitor import Visitor
from serving import _answer, api, partitions
from serving.metrics import Metrics
from serving.partitions import Peers
from serving.problems import Refused
from serving.shadow import Shadow
from serving.states import States, Unreadable
from serving.variants import Variant, Variants

log = logging.getLogger("insession.ranking")

Rows = npt.NDArray[np.int64]

RETRIEVED = 4
"""So many times more listings are retrieved than are asked for, for the ranker to choose from."""


@dataclass(slots=True)
class Ranking:
    """What answers are made from. `bundle` may be another one for the next request."""

    bundle: Bundle
    states: States
    metrics: Metrics
    variants: Variants = field(default_factory=Variants)
    bundles: dict[str, Bundle] = field(default_factory=dict)
    """Those of variants that have one of their own, by the variant's name."""
    peers: Peers = field(default_factory=dict)
    log_users: bool = False
    """Log the ids of users with whom something went wrong."""
    shadow: Shadow | None = None

    def bundle_for(self, variant: Variant, bundle: Bundle | None = None) -> Bundle:
        """The bundle that users of this variant are ranked with; `bundle` is the one in use, where it is another now."""
        return self.bundles.get(variant.name) or bundle or self.bundle

    async def rank(self, request: api.RankRequest, now: int, begun: float) -> api.RankResponse:
        """The candidates, ranked. `now` is the clock in ms, `begun` when the request came, as time.perf_counter has it."""
        self._check_partition(request.partition)
        path = "/v1/rank"
        late = request.min_offset is not None and not await self._reached(request, begun, path)
        return self._answer(request, self.bundle, late, path, now, begun)

    async def batch(self, request: api.BatchRequest, now: int, begun: float) -> api.BatchResponse:
        """An answer to each request, in their order. They wait together, and others are let in between two rankings."""
        if sum(len(one.candidates) for one in request.requests) > api.MAX_BATCH_CANDIDATES:
            says = f"more than {api.MAX_BATCH_CANDIDATES:,} candidates in all"
            raise Refused(422, says, field="$.requests")
        for at, one in enumerate(request.requests):
            try:
                _check(one.candidates)
                self._check_partition(one.partition)
            except Refused as refused:
                raise refused.within(f"$.requests[{at}]") from None
        answers: dict[int, api.RankResponse] = {}
        bundle = self.bundle  # of all answers, whatever is switched to meanwhile

        async def wait(at: int, one: api.RankRequest) -> None:
            late = not await self._reached(one, begun, None)
            answers[at] = self._answer(one, bundle, late, None, now, begun)

        async with asyncio.TaskGroup() as group:
            for at, one in enumerate(request.requests):
                if one.min_offset is not None:
                    group.create_task(wait(at, one))
            for at, one in enumerate(request.requests):
                if one.min_offset is None:
                    answers[at] = self._answer(one, bundle, False, None, now, begun)
                    await asyncio.sleep(0)
        in_order = [answers[at] for at in range(len(answers))]
        return api.BatchResponse(answers=in_order, took_ms=_since(begun))

    def _answer(
        self,
        request: api.RankRequest,
        used: Bundle,
        late: bool,
        path: str | None,
        now: int,
        begun: float,
    ) -> api.RankResponse:
        # Nothing else runs meanwhile: one bundle makes the whole answer.
        variant = self.variants.of(request.user_id)
        bundle = self.bundle_for(variant, used)
        visitor, outcome = self._visitor(request, bundle, late, path)
        timestamp = now if request.timestamp is None else request.timestamp
        user = visitor.embedding if visitor is not None else None
        candidates: Sequence[Candidate] = request.candidates
        gathered = ranking.gather(candidates, bundle)
        *_, once, pinned = gathered
        if pinned or not once:
            _check(request.candidates)
        ranked = None
        if outcome is None and variant.caller:
            outcome = "held-out"
        if outcome is None:
            candidates, ranked, outcome = self._ranked(request, bundle, visitor, timestamp, begun, gathered)
        if ranked is None:
            candidates, known = request.candidates, gathered[0] >= 0
            ranked = Ranked("unknown-user", np.arange(len(known)), None, known)
        elif self.shadow is not None and bundle is used and visitor is not None and ranked.scores is not None:
            self.shadow.offer(visitor, candidates, timestamp, ranked.order)
        order = _pin(ranked.order, candidates) if pinned else ranked.order
        if not ranked.known.all():
            self.metrics.unknown_listings.inc(float(np.count_nonzero(~ranked.known)))
        stale = user is not None and user.bundle != bundle.name
        if stale:
            self.metrics.stale.inc()
        return api.RankResponse(
            rank_id=secrets.token_hex(8),
            bundle=bundle.name,
            variant=variant.name,
            propensity=variant.share,
            outcome=outcome,
            state=_state(user, timestamp),
            stale=stale,
            took_ms=_since(begun),
            results=_results(candidates, order, ranked, len(request.candidates)),  # type: ignore[arg-type]
        )

    def _ranked(
        self,
        request: api.RankRequest,
        bundle: Bundle,
        visitor: Visitor | None,
        timestamp: int,
        begun: float,
        gathered: ranking.Gathered,
    ) -> tuple[Sequence[Candidate], Ranked | None, api.Outcome]:
        """The candidates, those retrieved behind them, and their ranking; None where the caller's order must do.

        The deadline is looked at before each part; where the model fails, a list in the caller's order is better
        than an error.
        """
        candidates: Sequence[Candidate] = request.candidates
        ends = begun + request.deadline_ms / 1000
        if time.perf_counter() > ends:
            return candidates, None, "deadline"
        try:
            if request.extend and (user := _retrievable(bundle, visitor, timestamp)) is not None:
                candidates = _extended(bundle, user, request)
                gathered = ranking.gather(candidates, bundle)
                if time.perf_counter() > ends:
                    return request.candidates, None, "deadline"
            ranked = ranking.rank(
                bundle,
                visitor,
                candidates,
                timestamp=timestamp,
                explain=request.explain,
                gathered=gathered,
            )
            if request.diversity and ranked.scores is not None:
                if time.perf_counter() > ends:
                    return request.candidates, None, "deadline"
                ranked = _diverse(bundle, gathered[0], ranked, request.diversity)
        except Exception:
            self._failed("ranking failed", request.user_id)
            return request.candidates, None, "failed"
        return candidates, ranked, ranked.outcome

    async def recommend(self, request: api.RecommendRequest, now: int, begun: float) -> api.RecommendResponse:
        """Listings near the session's vector, ranked."""
        self._check_partition(request.partition)
        path = "/v1/recommend"
        late = request.min_offset is not None and not await self._reached(request, begun, path)
        variant = self.variants.of(request.user_id)
        bundle = self.bundle_for(variant)
        visitor, outcome = self._visitor(request, bundle, late, path)
        timestamp = now if request.timestamp is None else request.timestamp
        user = visitor.embedding if visitor is not None else None
        stale = user is not None and user.bundle != bundle.name
        results: list[api.Recommended] = []
        if outcome is None and variant.caller:
            outcome = "held-out"
        elif outcome is None and time.perf_counter() > begun + request.deadline_ms / 1000:
            outcome = "deadline"
        elif outcome is None and (visitor is None or active(visitor, timestamp) is None):
            outcome = "unknown-user" if visitor is None else "no-session"
        elif outcome is None and _retrievable(bundle, visitor, timestamp) is None:
            outcome = "no-vector"
        if outcome is None and user is not None:
            seen = _seen(user, bundle) if request.exclude_seen else frozenset()
            try:
                candidates, similarities = _nearest(
                    bundle, user.vector, RETRIEVED * request.k, request.market, seen
                )
                ranked = ranking.rank(
                    bundle, visitor, candidates, timestamp=timestamp, explain=request.explain
                )
                outcome = ranked.outcome
                if ranked.scores is not None:
                    results = _recommended(candidates, ranked, similarities, request.k)
            except Exception:
                self._failed("recommending failed", request.user_id)
                outcome = "failed"
        assert outcome is not None
        if stale:
            self.metrics.stale.inc()
        return api.RecommendResponse(
            rank_id=secrets.token_hex(8),
            bundle=bundle.name,
            variant=variant.name,
            propensity=variant.share,
            outcome=outcome,
            state=_state(user, timestamp),
            stale=stale,
            took_ms=_since(begun),
            results=results,
        )

    def similar(self, request: api.SimilarRequest, now: int, begun: float) -> api.SimilarResponse:
        """The listings nearest to a listing; where a visitor is named, ranked for them as far as they are known."""
        user_id = request.user_id
        outcome: api.Outcome | None = None
        bundle, visitor = self.bundle, None
        if user_id is not None:
            variant = self.variants.of(user_id)
            bundle = self.bundle_for(variant)
            outcome = "held-out" if variant.caller else None
            try:
                visitor = self._look(user_id, bundle, None, _similar_path(request))
            except Unreadable as error:
                outcome = self._unreadable(user_id, error)
        row = bundle.row.get(request.listing_id)
        if row is None:
            raise Refused(404, "the bundle does not know this listing", field="listing_id")
        vector, exclude = bundle.vectors[row], {row}
        if request.exclude_seen and visitor is not None:
            exclude |= _seen(visitor.embedding, bundle)
        wanted = request.k if user_id is None else RETRIEVED * request.k
        candidates: list[Candidate] = []
        if vector.any():
            candidates, similarities = _nearest(bundle, vector, wanted, request.market, exclude)
        scores, order = None, list(range(len(candidates)))
        if user_id is not None and outcome is None:
            try:
                ranked = ranking.rank(bundle, visitor, candidates, timestamp=now)
                order, outcome = ranked.order.tolist(), ranked.outcome
                scores = ranked.scores.tolist() if ranked.scores is not None else None
            except Exception:
                self._failed("ranking similar listings failed", user_id)
                outcome = "failed"
        results = [
            api.Similar(
                listing_id=candidates[at].listing_id,
                position=place,
                similarity=float(similarities[at]),
                score=scores[at] if scores is not None else None,
            )
            for place, at in enumerate(order[: request.k], 1)
        ]
        return api.SimilarResponse(
            listing_id=request.listing_id,
            bundle=bundle.name,
            outcome=outcome or "nearest",
            results=results,
            took_ms=_since(begun),
        )

    def partitions(self) -> api.Partitions:
        """Which users' states are here."""
        return partitions.describe(self.states, self.peers)

    def user(self, user_id: str, now: int) -> api.UserResponse:
        """What is known of a user."""
        try:
            bundle = self.bundle_for(self.variants.of(user_id))
            visitor = self._look(user_id, bundle, None, f"/v1/users/{quote(user_id)}")
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

    def _look(self, user_id: str, bundle: Bundle, partition: int | None, path: str | None) -> Visitor | None:
        """What is stored of the user, with the vector of this bundle where there is one.

        Where that is nothing, as their partition is another sidecar's, raises Refused, which leads to `path` there.
        """
        visitor = self.states.visitor(user_id, bundle.name)
        if visitor is None and path is not None:
            number = partitions.elsewhere(self.states, user_id, partition)
            if number is not None:
                raise partitions.redirect(self.peers, number, path)
        return visitor

    def _visitor(
        self, request: api.RankRequest | api.RecommendRequest, bundle: Bundle, late: bool, path: str | None
    ) -> tuple[Visitor | None, api.Outcome | None]:
        """The user's records, or the outcome where there is nothing to rank by. Raises Refused as `_look` does."""
        user_id, partition = request.user_id, request.partition
        try:
            visitor = self._look(user_id, bundle, partition, path)
        except Unreadable as error:
            return None, self._unreadable(user_id, error)
        if visitor is None and partitions.elsewhere(self.states, user_id, partition) is not None:
            return None, "not-held"
        return visitor, "deadline" if late else None

    async def _reached(
        self, request: api.RankRequest | api.RecommendRequest, begun: float, path: str | None
    ) -> bool:
        """Whether `min_offset` is included, after having waited for it as long as the deadline lets."""
        assert request.min_offset is not None
        try:
            visitor = self._look(request.user_id, self.bundle, request.partition, path)
        except Unreadable:
            return True  # which is the outcome then
        if (
            visitor is None
            and partitions.elsewhere(self.states, request.user_id, request.partition) is not None
        ):
            return False
        partition = request.partition
        if partition is None:
            if visitor is not None:
                partition = visitor.embedding.partition
            else:
                partition = self.states.partition(request.user_id)
        left = request.deadline_ms / 1000 - (time.perf_counter() - begun)
        return partition is not None and await self.states.reached(partition, request.min_offset, left)

    def _check_partition(self, partition: int | None) -> None:
        count = self.states.partitions
        if partition is not None and count and partition >= count:
            raise Refused(422, f"clicks has the partitions 0 to {count - 1}", field="$.partition")

    def _unreadable(self, user_id: str, error: Unreadable) -> api.Outcome:
        log.warning("the state of %s can't be read: %s", self._named(user_id), error)
        return "unreadable-state"

    def _failed(self, what: str, user_id: str) -> None:
        log.exception("%s for %s", what, self._named(user_id))

    def _named(self, user_id: str) -> str:
        return f"user {user_id!r}" if self.log_users else "a user"


def _similar_path(request: api.SimilarRequest) -> str:
    """Where another sidecar answers the same."""
    asked: dict[str, object] = {"k": request.k, "user_id": request.user_id}
    if request.market is not None:
        asked["market"] = request.market
    if request.exclude_seen:
        asked["exclude_seen"] = "true"
    return f"/v1/similar/{quote(request.listing_id)}?{urlencode(asked)}"


def _check(candidates: Sequence[Candidate]) -> None:
    """Raise Refused where a listing stands twice, or a pin can't be kept."""
    pins = {candidate.listing_id: candidate.pin for candidate in candidates}
    if len(pins) < len(candidates):
        seen: set[str] = set()
        for at, candidate in enumerate(candidates):
            if candidate.listing_id in seen:
                field = f"$.candidates[{at}].listing_id"
                raise Refused(422, "this listing stands among the candidates already", field=field)
            seen.add(candidate.listing_id)
    taken: set[int] = set()
    for at, pin in enumerate(pins.values()):
        if pin is not None:
            field = f"$.candidates[{at}].pin"
            if pin > len(candidates):
                raise Refused(422, f"there are only {len(candidates)} candidates", field=field)
            if pin in taken:
                raise Refused(422, "another candidate is pinned to this place", field=field)
            taken.add(pin)


def _pin(order: Rows, candidates: Sequence[Candidate]) -> Rows:
    """The order with the pinned ones in their places, and the others around them as they stood."""
    pins = {candidate.pin: at for at, candidate in enumerate(candidates) if candidate.pin is not None}
    others = iter([at for at in order.tolist() if candidates[at].pin is None])
    places = range(1, len(order) + 1)
    return np.array([pins[place] if place in pins else next(others) for place in places], np.int64)


def _retrievable(bundle: Bundle, visitor: Visitor | None, timestamp: int) -> UserEmbedding | None:
    """The user whose session has a vector to retrieve by; None where there is none."""
    if visitor is None or active(visitor, timestamp) is None:
        return None
    user = visitor.embedding
    return user if user.vector is not None and user.bundle == bundle.name else None


def _nearest(
    bundle: Bundle, vector: npt.ArrayLike | None, number: int, market: str | None, exclude: Set[int]
) -> tuple[list[Candidate], npt.NDArray[np.float32]]:
    """At most `number` listings nearest to the vector, and their similarities."""
    rows, similarities = bundle.nearest(
        np.asarray(vector, np.float32), number, market=market, exclude=exclude
    )
    ids = bundle.space.ids
    return [Candidate(ids[row]) for row in rows.tolist()], similarities


def _extended(bundle: Bundle, user: UserEmbedding, request: api.RankRequest) -> list[Candidate]:
    """The caller's candidates and the retrieved ones behind them, with a score as low as the lowest of the caller's."""
    row = bundle.row
    given = request.candidates
    rows = frozenset(at for one in given if (at := row.get(one.listing_id)) is not None)
    found, _ = _nearest(bundle, user.vector, request.extend, request.market, rows)
    scores = [one.score for one in given if one.score is not None]
    lowest = min(scores) if scores and len(scores) == len(given) else None
    return [*given, *(Candidate(one.listing_id, lowest) for one in found)]


def _diverse(bundle: Bundle, rows: Rows, ranked: Ranked, diversity: float) -> Ranked:
    """The ranking with its first places diversified; unknown listings, whose row is -1, keep theirs."""
    assert ranked.scores is not None
    rows = rows[ranked.order]
    places = np.flatnonzero(rows >= 0)
    best = diversify(ranked.scores[ranked.order[places]], bundle.vectors[rows[places]], diversity)
    order = ranked.order.copy()
    order[places] = ranked.order[places[best]]
    return replace(ranked, order=order)


def _results(
    candidates: Sequence[Candidate], order: Rows, ranked: Ranked, given: int
) -> list[api.RankedListing] | msgspec.Raw:
    """The answer's list, encoded but where it is explained: candidates in this order, of which the first `given` are
    the caller's."""
    scores, known, parts = ranked.scores, ranked.known, _parts(ranked.contributions)
    if parts is None:
        return msgspec.Raw(_answer.results(tuple(candidates), order, scores, known, given))
    return [
        api.RankedListing(
            listing_id=candidates[at].listing_id,
            position=place,
            caller_position=at + 1 if at < given else None,
            score=scores.item(at) if scores is not None else None,
            known=known.item(at),
            retrieved=at >= given,
            contributions=parts[at] if known[at] else None,
        )
        for place, at in enumerate(order.tolist(), 1)
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
            score=scores.item(at),
            contributions=parts[at] if parts is not None else None,
        )
        for place, at in enumerate(ranked.order[:k].tolist(), 1)
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
