"""The answers of the API: what is known of the user, ranked by the one function of `models.rank`."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote, urlencode

import msgspec
import numpy as np
import numpy.typing as npt

from models import rank as ranking
from models.bundle import Bundle
from models.diversity import diversify
from models.features import NAMES
from models.rank import Candidate, Candidates, Ranked
from models.visitor import Visitor
from serving import _lists, api, described, partitions, retrieval
from serving.metrics import Metrics
from serving.partitions import Peers
from serving.problems import Refused
from serving.shadow import Shadow
from serving.states import States, Unreadable
from serving.variants import Variant, Variants

log = logging.getLogger("insession.ranking")

Rows = npt.NDArray[np.int64]
Asked = api.RankRequest | _lists.Asked
"""A request as the types say it, or a plain one whose candidates were never made objects of."""


class NotHeld(Exception):
    """The user's partition is followed elsewhere."""

    def __init__(self, partition: int) -> None:
        super().__init__(f"partition {partition}")
        self.partition = partition


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
    random: random.Random = field(default_factory=random.Random)

    def bundle_for(self, variant: Variant, bundle: Bundle | None = None) -> Bundle:
        """The bundle that users of this variant are ranked with; `bundle` is the one in use, where it is another now."""
        return self.bundles.get(variant.name) or bundle or self.bundle

    async def rank(self, request: Asked, now: int, begun: float) -> api.RankResponse:
        """The candidates, ranked. `now` is the clock in ms, `begun` when the request came, as time.perf_counter has it."""
        if request.min_offset is None:
            return self.rank_now(request, now, begun)
        self._check_partition(request.partition)
        _check(Candidates(request.candidates))
        try:
            late = not await self._reached(request, begun)
            return self._answer(request, self.bundle, late, now, begun)
        except NotHeld as error:
            raise self._redirect(error, "/v1/rank") from None

    def rank_now(self, request: Asked, now: int, begun: float) -> api.RankResponse:
        """`rank` of a request that need not wait: it names no `min_offset`."""
        if request.partition is not None:
            self._check_partition(request.partition)
        try:
            return self._answer(request, self.bundle, False, now, begun)
        except NotHeld as error:
            raise self._redirect(error, "/v1/rank") from None

    async def batch(self, request: api.BatchRequest, now: int, begun: float) -> api.BatchResponse:
        """An answer to each request, in their order. They wait together, and others are let in between two rankings."""
        if sum(len(one.candidates) for one in request.requests) > api.MAX_BATCH_CANDIDATES:
            says = f"more than {api.MAX_BATCH_CANDIDATES:,} candidates in all"
            raise Refused(422, says, field="$.requests")
        for at, one in enumerate(request.requests):
            try:
                _check(Candidates(one.candidates))
                self._check_partition(one.partition)
            except Refused as refused:
                raise refused.within(f"$.requests[{at}]") from None
        answers: dict[int, api.RankResponse] = {}
        bundle = self.bundle  # of all answers, whatever is switched to meanwhile

        async def answer(at: int, one: api.RankRequest) -> None:
            try:
                late = one.min_offset is not None and not await self._reached(one, begun)
                answers[at] = self._answer(one, bundle, late, now, begun)
            except NotHeld:
                answers[at] = self._answer(one, bundle, False, now, begun, outcome="not-held")

        async with asyncio.TaskGroup() as group:
            for at, one in enumerate(request.requests):
                if one.min_offset is not None:
                    group.create_task(answer(at, one))
            for at, one in enumerate(request.requests):
                if one.min_offset is None:
                    await answer(at, one)
                    await asyncio.sleep(0)
        in_order = [answers[at] for at in range(len(answers))]
        return api.BatchResponse(answers=in_order, took_ms=_since(begun))

    def _answer(
        self,
        request: Asked,
        used: Bundle,
        late: bool,
        now: int,
        begun: float,
        outcome: api.Outcome | None = None,
    ) -> api.RankResponse:
        """The answer; with an `outcome`, that one and the caller's order. Raises NotHeld."""
        # Nothing else runs meanwhile: one bundle makes the whole answer.
        user_id = request.user_id
        variant = self.variants.of(user_id)
        bundle = self.bundle_for(variant, used)
        candidates = ranking.look_up(request.candidates, bundle)
        if candidates.pinned or not candidates.once:
            _check(candidates)
        visitor, shadowed = None, False
        if outcome is None:
            shadowed = self.shadow is not None and bundle is used and self.shadow.chosen()
            visitor, outcome = self._visitor(user_id, bundle, request.partition, late, whole=shadowed)
        timestamp = now if request.timestamp is None else request.timestamp
        if outcome is None and variant.caller:
            outcome = "held-out"
        ranked = None
        if outcome is None:
            candidates, ranked, outcome = self._ranked(request, bundle, visitor, timestamp, begun, candidates)
        given = len(request.candidates)
        if ranked is None:
            ranked = Ranked("unknown-user", np.arange(given), None)
        order = _pin(ranked.order, candidates) if candidates.pinned else ranked.order
        if unknown := candidates.unknown:
            self.metrics.unknown_listings.inc(unknown)
        answer = api.RankResponse(
            rank_id=self._new_id(),
            bundle=bundle.name,
            variant=variant.name,
            propensity=variant.share,
            outcome=outcome,
            state=described.state(visitor, timestamp),
            stale=self._stale(visitor, bundle),
            took_ms=_since(begun),
            results=_results(candidates, order, ranked, given),  # type: ignore[arg-type]
        )
        if shadowed and self.shadow is not None and visitor is not None and ranked.scores is not None:
            self.shadow.offer(visitor, candidates, timestamp, ranked.order)
        return answer

    def _ranked(
        self,
        request: Asked,
        bundle: Bundle,
        visitor: Visitor | None,
        timestamp: int,
        begun: float,
        given: Candidates,
    ) -> tuple[Candidates, Ranked | None, api.Outcome]:
        """The candidates, those retrieved behind them, and their ranking; None where the caller's order must do.

        The deadline is looked at before each part; where the model fails, a list in the caller's order is better
        than an error.
        """
        candidates = given
        ends = begun + request.deadline_ms / 1000
        if time.perf_counter() > ends:
            return given, None, "deadline"
        try:
            if request.extend and visitor is not None and retrieval.possible(bundle, visitor, timestamp):
                assert isinstance(request, api.RankRequest)
                candidates = ranking.look_up(retrieval.extended(bundle, visitor, request, given), bundle)
                if time.perf_counter() > ends:
                    return given, None, "deadline"
            ranked = ranking.rank(bundle, visitor, candidates, timestamp=timestamp, explain=request.explain)
            if request.diversity and ranked.scores is not None:
                if time.perf_counter() > ends:
                    return given, None, "deadline"
                ranked = _diverse(bundle, candidates.rows, ranked, request.diversity)
        except Exception:
            self._failed("ranking failed", request.user_id)
            return given, None, "failed"
        return candidates, ranked, ranked.outcome

    async def recommend(self, request: api.RecommendRequest, now: int, begun: float) -> api.RecommendResponse:
        """Listings near the session's vector, ranked."""
        self._check_partition(request.partition)
        variant = self.variants.of(request.user_id)
        try:
            late = request.min_offset is not None and not await self._reached(request, begun)
            bundle = self.bundle_for(variant)
            visitor, outcome = self._visitor(request.user_id, bundle, request.partition, late)
        except NotHeld as error:
            raise self._redirect(error, "/v1/recommend") from None
        timestamp = now if request.timestamp is None else request.timestamp
        results: list[api.Recommended] = []
        if outcome is None and variant.caller:
            outcome = "held-out"
        elif outcome is None and time.perf_counter() > begun + request.deadline_ms / 1000:
            outcome = "deadline"
        elif outcome is None and (visitor is None or not visitor.open(timestamp)):
            outcome = "unknown-user" if visitor is None else "no-session"
        elif outcome is None and not retrieval.possible(bundle, visitor, timestamp):
            outcome = "no-vector"
        if outcome is None and visitor is not None:
            try:
                seen = retrieval.seen(bundle, visitor) if request.exclude_seen else frozenset()
                found, similarities = retrieval.nearest(
                    bundle, visitor.known.vector, retrieval.MORE * request.k, request.market, seen
                )
                candidates = ranking.look_up(found, bundle)
                ranked = ranking.rank(
                    bundle, visitor, candidates, timestamp=timestamp, explain=request.explain
                )
                outcome = ranked.outcome
                if ranked.scores is not None:
                    results = _recommended(found, ranked, similarities, request.k)
            except Exception:
                self._failed("recommending failed", request.user_id)
                outcome = "failed"
        assert outcome is not None
        return api.RecommendResponse(
            rank_id=self._new_id(),
            bundle=bundle.name,
            variant=variant.name,
            propensity=variant.share,
            outcome=outcome,
            state=described.state(visitor, timestamp),
            stale=self._stale(visitor, bundle),
            took_ms=_since(begun),
            results=results,
        )

    def similar(self, request: api.SimilarRequest, now: int, begun: float) -> api.SimilarResponse:
        """The listings nearest to a listing; where a visitor is named, ranked for them as far as they are known."""
        user_id = request.user_id
        outcome: api.Outcome | None = None
        bundle, visitor, variant = self.bundle, None, None
        if user_id is None and request.exclude_seen:
            raise Refused(422, "whose? this goes with user_id", field="exclude_seen")
        if user_id is not None:
            variant = self.variants.of(user_id)
            bundle = self.bundle_for(variant)
            outcome = "held-out" if variant.caller else None
            try:
                visitor = self._look(user_id, bundle, None)
            except Unreadable as error:
                outcome = self._unreadable(user_id, error)
            except NotHeld as error:
                raise self._redirect(error, _similar_path(request)) from None
        row = bundle.row.get(request.listing_id)
        if row is None:
            raise Refused(404, "the bundle does not know this listing", field="listing_id")
        vector, exclude = bundle.vectors[row], {row}
        if request.exclude_seen and visitor is not None:
            exclude |= retrieval.seen(bundle, visitor)
        wanted = request.k if user_id is None else retrieval.MORE * request.k
        found: list[Candidate] = []
        if vector.any():
            found, similarities = retrieval.nearest(bundle, vector, wanted, request.market, exclude)
        scores, order = None, list(range(len(found)))
        if user_id is not None and outcome is None:
            try:
                ranked = ranking.rank(bundle, visitor, ranking.look_up(found, bundle), timestamp=now)
                order, outcome = ranked.order.tolist(), ranked.outcome
                scores = ranked.scores.tolist() if ranked.scores is not None else None
            except Exception:
                self._failed("ranking similar listings failed", user_id)
                outcome = "failed"
        results = [
            api.Similar(
                listing_id=found[at].listing_id,
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
            rank_id=self._new_id() if variant else None,
            variant=variant.name if variant else None,
            propensity=variant.share if variant else None,
            state=described.state(visitor, now),
            stale=self._stale(visitor, bundle),
        )

    def partitions(self) -> api.Partitions:
        """Which users' states are here."""
        return partitions.describe(self.states, self.peers)

    def user(self, user_id: str, now: int) -> api.UserResponse:
        """What is known of a user."""
        try:
            visitor = self._look(user_id, self.bundle_for(self.variants.of(user_id)), None, whole=True)
            user = visitor.embedding if visitor is not None else None
        except (Unreadable, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Refused(500, f"the user's state can't be read: {error}") from None
        except NotHeld as error:
            raise self._redirect(error, f"/v1/users/{quote(user_id)}") from None
        if user is None or not (
            user.state.sessions or user.state.last
        ):  # or only that the user was forgotten
            raise Refused(404, "nothing is known of this user", field="user_id")
        return described.user(user, self.states.applied.get(user.partition), now)

    def _look(
        self, user_id: str, bundle: Bundle, partition: int | None, *, whole: bool = False
    ) -> Visitor | None:
        """What is stored of the user, with the vector of this bundle where there is one.

        Raises Unreadable, and NotHeld where there is nothing as their partition is another sidecar's.
        """
        visitor = self.states.visitor(user_id, bundle.name, whole=whole)
        if visitor is None:
            number = partitions.elsewhere(self.states, user_id, partition)
            if number is not None:
                raise NotHeld(number)
        return visitor

    def _visitor(
        self, user_id: str, bundle: Bundle, partition: int | None, late: bool, *, whole: bool = False
    ) -> tuple[Visitor | None, api.Outcome | None]:
        """The user's records, or the outcome where there is nothing to rank by. Raises NotHeld."""
        try:
            visitor = self._look(user_id, bundle, partition, whole=whole)
        except Unreadable as error:
            return None, self._unreadable(user_id, error)
        return visitor, "deadline" if late else None

    async def _reached(self, request: Asked | api.RecommendRequest, begun: float) -> bool:
        """Whether `min_offset` is included, after having waited for it as long as the deadline lets. Raises NotHeld."""
        assert request.min_offset is not None
        try:
            visitor = self._look(request.user_id, self.bundle, request.partition)
        except Unreadable:
            return True  # which is the outcome then
        partition = request.partition
        if partition is None:
            partition = visitor.known.partition if visitor else self.states.partition(request.user_id)
        left = request.deadline_ms / 1000 - (time.perf_counter() - begun)
        return partition is not None and await self.states.reached(partition, request.min_offset, left)

    def _redirect(self, error: NotHeld, path: str) -> Refused:
        return partitions.redirect(self.peers, error.partition, path)

    def _stale(self, visitor: Visitor | None, bundle: Bundle) -> bool:
        """Whether the visitor's vector is of another bundle; counted."""
        stale = visitor is not None and visitor.known.bundle != bundle.name
        if stale:
            self.metrics.stale.inc()
        return stale

    def _new_id(self) -> str:
        """A name for a ranking, of 64 bits; nothing depends on nobody's guessing it."""
        return f"{self.random.getrandbits(64):016x}"

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


def _check(candidates: Candidates) -> None:
    """Raise Refused where a listing stands twice, or a pin can't be kept."""
    seen: set[str] = set()
    for at, listing in enumerate(candidates.ids):
        if listing in seen:
            field = f"$.candidates[{at}].listing_id"
            raise Refused(422, "this listing stands among the candidates already", field=field)
        seen.add(listing)
    taken: set[int] = set()
    for at, pin in enumerate(candidates.pins):
        if pin is not None:
            field = f"$.candidates[{at}].pin"
            if pin > len(candidates):
                raise Refused(422, f"there are only {len(candidates)} candidates", field=field)
            if pin in taken:
                raise Refused(422, "another candidate is pinned to this place", field=field)
            taken.add(pin)


def _pin(order: Rows, candidates: Candidates) -> Rows:
    """The order with the pinned ones in their places, and the others around them as they stood."""
    at_place = {pin: at for at, pin in enumerate(candidates.pins) if pin is not None}
    pinned = frozenset(at_place.values())
    others = iter([at for at in order.tolist() if at not in pinned])
    places = range(1, len(order) + 1)
    return np.array([at_place[place] if place in at_place else next(others) for place in places], np.int64)


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
    candidates: Candidates, order: Rows, ranked: Ranked, given: int
) -> list[api.RankedListing] | msgspec.Raw:
    """The answer's list, encoded but where it is explained: candidates in this order, of which the first `given` are
    the caller's."""
    scores, parts = ranked.scores, _parts(ranked.contributions)
    if parts is None:
        return msgspec.Raw(_lists.answered(candidates, order, scores, given))
    ids, known = candidates.ids, (candidates.rows >= 0).tolist()
    return [
        api.RankedListing(
            listing_id=ids[at],
            position=place,
            caller_position=at + 1 if at < given else None,
            score=scores.item(at) if scores is not None else None,
            known=known[at],
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


def _since(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1000, 3)
