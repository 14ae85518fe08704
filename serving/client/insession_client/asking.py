"""What both clients have in common: all but the sending."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from . import problems
from .answers import AWAY, RankAnswer, Ranking, Recommendation, SimilarListings, away, ranking
from .problems import UNREADABLE, Problem, Refused
from .questions import Request, check
from .routes import Routes
from .sidecars import Sidecar
from .steps import Attempt, Reply, Steps

DEADLINE = 0.8
"""The part of the timeout that the sidecar is given: after it, it answers with the caller's order by itself."""
RANK, BATCH, RECOMMEND, SIMILAR = "/v1/rank", "/v1/rank/batch", "/v1/recommend", "/v1/similar/"

T = TypeVar("T")


class BatchAnswer(msgspec.Struct):
    """As it comes over the wire."""

    answers: list[RankAnswer]


# Made here and not where they are first used: msgspec crashes where two threads are the first to use a type.
_encode = msgspec.json.Encoder().encode
_rank_answer = msgspec.json.Decoder(RankAnswer).decode
_batch_answer = msgspec.json.Decoder(BatchAnswer).decode
_recommendation = msgspec.json.Decoder(Recommendation).decode
_similar_listings = msgspec.json.Decoder(SimilarListings).decode


class Asking:
    """Makes steps of a question, and an answer of what they bring."""

    def __init__(
        self,
        urls: str | Iterable[str],
        token: str | None,
        timeout: float,
        on_away: Callable[[str], object] | None,
    ) -> None:
        self.timeout = timeout
        self.away = 0
        """How many times no sidecar answered."""
        self._on_away = on_away
        self._headers = {"content-type": "application/json"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._routes = Routes([urls] if isinstance(urls, str) else urls)

    def _rank(self, request: Request, timeout: float | None) -> Steps[Ranking]:
        until = self._until(timeout)
        check(request)
        body = _encode(_with_deadline(request, until))
        read = partial(_ranking, request)
        answer = yield from self._ask(request.user_id, request.partition, RANK, body, read, until)
        return answer or away(request)

    def _rank_batch(self, requests: Sequence[Request], timeout: float | None) -> Steps[list[Ranking]]:
        until = self._until(timeout)
        for at, request in enumerate(requests):
            check(request, f"$.requests[{at}]")
        yield from self._routes.learn(until)
        asked = dict(enumerate(requests))
        holders = {at: self._holding(request) for at, request in asked.items()}
        rankings = yield from self._batches(asked, until)
        if any(one.outcome == "not-held" for one in rankings.values()):
            # A sidecar passes on a single request, and none of a batch: who has those users?
            self._routes.doubt()
            yield from self._routes.learn(until)
            again = {
                at: request
                for at, request in asked.items()
                if rankings[at].outcome == "not-held" and self._holding(request) != holders[at]
            }
            rankings.update((yield from self._batches(again, until)))
        return [rankings[at] for at in asked]

    def _batches(self, requests: dict[int, Request], until: float) -> Steps[dict[int, Ranking]]:
        """Each request's ranking, asked of those who hold the users."""
        groups: dict[tuple[Sidecar, ...], list[int]] = {}
        for at, request in requests.items():
            groups.setdefault(tuple(self._holding(request)), []).append(at)
        rankings: dict[int, Ranking] = {}
        for group in groups.values():
            asked = [requests[at] for at in group]
            body = _encode({"requests": [_with_deadline(request, until) for request in asked]})
            user_id, partition = asked[0].user_id, asked[0].partition
            read = partial(_rankings, asked)
            answers = yield from self._ask(user_id, partition, BATCH, body, read, until)
            rankings.update(zip(group, answers or map(away, asked), strict=True))
        return rankings

    def _recommend(
        self, user_id: str, question: dict[str, Any], timeout: float | None
    ) -> Steps[Recommendation]:
        until = self._until(timeout)
        given = {"user_id": user_id, "deadline_ms": _deadline_ms(until), **question}
        body = _encode({name: value for name, value in given.items() if value is not None})
        answer = yield from self._ask(user_id, given["partition"], RECOMMEND, body, _recommendation, until)
        return answer or Recommendation(outcome=AWAY)

    def _similar(
        self, listing_id: str, question: dict[str, Any], timeout: float | None
    ) -> Steps[SimilarListings]:
        until = self._until(timeout)
        query = urlencode({name: value for name, value in question.items() if value is not None})
        said = f"{quote(listing_id, safe='')}?{query}"
        try:
            answer = yield from self._ask(question["user_id"], None, SIMILAR, said, _similar_listings, until)
        except Refused as refused:
            if (refused.status, refused.field) != (404, "listing_id"):
                raise
            return SimilarListings(listing_id=listing_id, outcome="unknown-listing")
        return answer or SimilarListings(listing_id=listing_id, outcome=AWAY)

    def _ask(
        self,
        user_id: str | None,
        partition: int | None,
        route: str,
        said: bytes | str,
        read: Callable[[bytes], T],
        until: float,
    ) -> Steps[T | None]:
        """What the first sidecar answers that may have the user; None, and counted, where none does. Raises Refused.

        `said` is the body of a POST, or what follows the route of a GET.
        """
        yield from self._routes.learn(until)
        method, path, body = ("GET", route + said, None) if isinstance(said, str) else ("POST", route, said)
        why = "every sidecar failed just now and is left alone"
        asked: list[Sidecar] = []
        waiting = self._routes.in_turn(user_id, partition)
        while waiting:
            sidecar = waiting.popleft()
            now = time.monotonic()
            if now >= until:
                why = why if asked else "timed out"
                break
            if sidecar in asked or not sidecar.open(now):
                continue
            asked.append(sidecar)
            reply = yield Attempt(sidecar, method, path, body, until)
            if reply.status == 200:
                try:
                    answer = read(reply.body)
                except UNREADABLE as error:
                    why = f"{sidecar.url}: the answer is not a sidecar's: {error}"
                    sidecar.failed(time.monotonic())
                    continue
                sidecar.answered()
                return answer
            problem = problems.read(reply.body)
            why = f"{sidecar.url}: {_why(reply, problem)}"
            if problem is not None and problems.of_the_request(reply.status, problem):
                sidecar.answered()
                raise Refused(problem)
            if reply.status == 307:
                sidecar.answered()
                named = self._routes.named(sidecar, reply.location, route)
                if named is not None:
                    waiting.appendleft(named)
                    self._routes.doubt()
            elif reply.status == 421:
                # It changed hands: who has it now?
                sidecar.answered()
                self._routes.doubt()
                yield from self._routes.learn(until)
                waiting = self._routes.in_turn(user_id, problem.partition if problem else partition)
            else:
                sidecar.failed(time.monotonic())
        self.away += 1
        if self._on_away is not None:
            self._on_away(why)
        return None

    def _holding(self, request: Request) -> list[Sidecar]:
        return self._routes.holding(request.user_id, request.partition)

    def _until(self, timeout: float | None) -> float:
        return time.monotonic() + (self.timeout if timeout is None else timeout)


def _ranking(request: Request, body: bytes) -> Ranking:
    return ranking(request, _rank_answer(body))


def _rankings(requests: Sequence[Request], body: bytes) -> list[Ranking]:
    answers = _batch_answer(body).answers
    if len(answers) != len(requests):
        raise ValueError(f"{len(answers)} answers came to {len(requests)} requests")
    return list(map(ranking, requests, answers))


def _why(reply: Reply, problem: Problem | None) -> str:
    said = problem.detail if problem is not None else reply.body[:200].decode(errors="replace")
    return f"{reply.status}: {said}" if reply.status else said


def _deadline_ms(until: float) -> int:
    return max(1, min(10_000, int((until - time.monotonic()) * 1000 * DEADLINE)))


def _with_deadline(request: Request, until: float) -> Request:
    if request.deadline_ms is not None:
        return request
    return msgspec.structs.replace(request, deadline_ms=_deadline_ms(until))
