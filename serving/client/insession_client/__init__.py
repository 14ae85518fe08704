"""Asks insession's sidecars to re-rank, from a search service: a list always comes back, the caller's own where no sidecar helps.

    client = Client("http://127.0.0.1:8080")
    ranking = client.rank("ada", ["lisbon-174", "lisbon-093"])
    ranking.listing_ids            # best first
    ranking.event("ada-search-7")  # the `search` event to put on `clicks`

`Client` may be shared by threads; `AsyncClient` does the same with asyncio and needs aiohttp. Make either in the
process that uses it, not before it forks. A sidecar that is away, slow, or fails never raises: the outcome is "away",
`on_away` hears why, and after some failures in a row it is left alone for a while. What the caller got wrong raises
`Refused`. Where several sidecars hold some partitions each, a user's is found by Kafka's hash of the user id.
"""

from __future__ import annotations

import http.client
import io
import itertools
import secrets
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit

import msgspec

if TYPE_CHECKING:
    import socket

    import aiohttp

__all__ = [
    "AsyncClient",
    "Candidate",
    "Client",
    "Ranked",
    "Ranking",
    "Recommendation",
    "Recommended",
    "Refused",
    "Request",
    "Similar",
    "SimilarListings",
    "State",
    "partition_of",
]

AWAY = "away"
FAILURES = 3
"""After so many in a row a sidecar is left alone,"""
REST_SECONDS = 1.0
"""for so long; then one request tries it."""
ROUTES_SECONDS = 60.0
"""How long it is trusted who holds which partitions, where nobody says otherwise,"""
MISSING_SECONDS = 5.0
"""and where some sidecar did not say."""
DEADLINE = 0.8
"""The part of the timeout that the sidecar is given: after it, it answers with the caller's order by itself."""


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


class _RankAnswer(Answer, frozen=True, kw_only=True):
    results: list[Ranked] = []


class Ranking(_RankAnswer, frozen=True, kw_only=True):
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


class SimilarListings(msgspec.Struct, frozen=True, kw_only=True):
    """Near listings; `outcome` is the sidecar's, "unknown-listing" where the bundle has none such, or "away"."""

    listing_id: str
    outcome: str = "nearest"
    bundle: str | None = None
    results: list[Similar] = []


class Refused(Exception):
    """The sidecar did not take the request: it must be changed, as `detail` and `field` say."""

    def __init__(self, problem: _Problem) -> None:
        where = f" at {problem.field}" if problem.field else ""
        super().__init__(f"{problem.status}: {problem.detail or problem.title}{where}")
        self.status = problem.status
        self.type = problem.type
        self.detail = problem.detail
        self.field = problem.field


class _Problem(msgspec.Struct, kw_only=True):
    status: int
    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    field: str | None = None
    partition: int | None = None


class _BatchAnswer(msgspec.Struct):
    answers: list[_RankAnswer]


class _Partitions(msgspec.Struct):
    partitions: int
    held: list[int]


# Made here and not where they are first used: msgspec crashes where two threads are the first to use a type.
_encode = msgspec.json.Encoder().encode
_rank_answers = msgspec.json.Decoder(_RankAnswer)
_batch_answers = msgspec.json.Decoder(_BatchAnswer)
_recommendations = msgspec.json.Decoder(Recommendation)
_similar_listings = msgspec.json.Decoder(SimilarListings)
_problems = msgspec.json.Decoder(_Problem)
_partitions = msgspec.json.Decoder(_Partitions)

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError)
"""What the decoders raise: msgspec lets the latter through where a string is not UTF-8."""

T = TypeVar("T")


def partition_of(user_id: str, partitions: int) -> int:
    """The partition where Kafka's default partitioner puts a user's events: MurmurHash2 of the key, as Java has it."""
    key, multiplier, mask = user_id.encode(), 0x5BD1E995, 0xFFFFFFFF
    hashed = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        hashed = hashed * multiplier & mask ^ word
    if whole < len(key):
        hashed = (hashed ^ int.from_bytes(key[whole:], "little")) * multiplier & mask
    hashed = (hashed ^ hashed >> 13) * multiplier & mask
    return ((hashed ^ hashed >> 15) & 0x7FFFFFFF) % partitions


@dataclass(slots=True)
class _Sidecar:
    """A sidecar, its idle connections, and whether it is left alone."""

    url: str
    idle: deque[http.client.HTTPConnection] = field(default_factory=deque)
    failures: int = 0
    rests_until: float = 0.0

    def open(self, now: float) -> bool:
        """Whether to ask it; where its rest is over, only whoever asks first does."""
        if self.failures < FAILURES:
            return True
        if now < self.rests_until:
            return False
        self.rests_until = now + REST_SECONDS
        return True

    def failed(self, now: float) -> None:
        self.failures += 1
        self.rests_until = now + REST_SECONDS

    def answered(self) -> None:
        self.failures = 0


class _Attempt(NamedTuple):
    """A request to send: to whom, what, and until when (time.monotonic) an answer is of use."""

    sidecar: _Sidecar
    method: str
    path: str
    body: bytes | None
    until: float


class _Reply(NamedTuple):
    """An answer; where none came, the status is 0 and the body says why."""

    status: int
    body: bytes
    location: str = ""


Steps = Generator[_Attempt, _Reply, T]
"""A request as steps: each attempt it yields is answered with a reply. What sends them is all that differs by client."""


class _Asking:
    """What both clients have in common: all but the sending."""

    def __init__(
        self,
        urls: str | Iterable[str],
        token: str | None,
        timeout: float,
        on_away: Callable[[str], object] | None,
    ) -> None:
        listed = [urls] if isinstance(urls, str) else list(urls)
        if not listed or any(urlsplit(url).scheme not in ("http", "https") for url in listed):
            raise ValueError(f"the sidecars' addresses must be http:// or https:// URLs, not {listed!r}")
        self.timeout = timeout
        self.away = 0
        """How many times no sidecar answered."""
        self._on_away = on_away
        self._headers = {"content-type": "application/json"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._listed = [_Sidecar(url.rstrip("/")) for url in listed]
        self._others: dict[str, _Sidecar] = {}
        """Those that a sidecar named, by address."""
        self._holders: dict[int, list[_Sidecar]] = {}
        self._partitions = 0
        self._routes_at = 0.0
        """When they were last asked for,"""
        self._routes_until = 0.0
        """and how long they are believed."""
        self._turn = itertools.count()

    def _rank(self, request: Request, timeout: float | None) -> Steps[Ranking]:
        until = self._until(timeout)
        body = _encode(_with_deadline(request, until))
        reply = yield from self._ask(request.user_id, request.partition, "POST", "/v1/rank", body, until)
        answer = self._decode(_rank_answers, reply)
        return _ranking(request, answer)

    def _rank_batch(self, requests: Sequence[Request], timeout: float | None) -> Steps[list[Ranking]]:
        until = self._until(timeout)
        yield from self._routes(until)
        groups: dict[tuple[int, ...], list[int]] = {}
        for at, request in enumerate(requests):
            holders = self._holding(request.user_id, request.partition)
            groups.setdefault(tuple(map(id, holders)), []).append(at)
        rankings: dict[int, Ranking] = {}
        for group in groups.values():
            first = requests[group[0]]
            body = _encode({"requests": [_with_deadline(requests[at], until) for at in group]})
            reply = yield from self._ask(
                first.user_id, first.partition, "POST", "/v1/rank/batch", body, until
            )
            answers = self._decode(_batch_answers, reply)
            listed: list[_RankAnswer | None] = [*answers.answers] if answers else [None] * len(group)
            if len(listed) != len(group):
                self._lost(f"{len(listed)} answers came to {len(group)} requests")
                listed = [None] * len(group)
            for at, answer in zip(group, listed, strict=True):
                rankings[at] = _ranking(requests[at], answer)
        return [rankings[at] for at in range(len(requests))]

    def _recommend(
        self, user_id: str, question: dict[str, Any], timeout: float | None
    ) -> Steps[Recommendation]:
        until = self._until(timeout)
        given = {"user_id": user_id, "deadline_ms": _deadline_ms(until), **question}
        body = _encode({name: value for name, value in given.items() if value is not None})
        reply = yield from self._ask(user_id, given["partition"], "POST", "/v1/recommend", body, until)
        return self._decode(_recommendations, reply) or Recommendation(outcome=AWAY)

    def _similar(
        self, listing_id: str, question: dict[str, Any], timeout: float | None
    ) -> Steps[SimilarListings]:
        until = self._until(timeout)
        query = urlencode({name: value for name, value in question.items() if value is not None})
        path = f"/v1/similar/{quote(listing_id, safe='')}?{query}"
        reply = yield from self._ask(question["user_id"], None, "GET", path, None, until)
        if reply.status == 404 and _problem(reply).field == "listing_id":
            return SimilarListings(listing_id=listing_id, outcome="unknown-listing")
        found = self._decode(_similar_listings, reply)
        return found or SimilarListings(listing_id=listing_id, outcome=AWAY)

    def _ask(
        self,
        user_id: str | None,
        partition: int | None,
        method: str,
        path: str,
        body: bytes | None,
        until: float,
    ) -> Steps[_Reply]:
        """The answer of the first sidecar that may have the user and gives one; where none does, why."""
        yield from self._routes(until)
        reply = _Reply(0, b"every sidecar failed just now and is left alone")
        asked: list[_Sidecar] = []
        waiting = self._in_turn(user_id, partition)
        while waiting:
            sidecar = waiting.popleft()
            now = time.monotonic()
            if sidecar in asked or not sidecar.open(now):
                continue
            if now >= until:
                break
            asked.append(sidecar)
            reply = yield _Attempt(sidecar, method, path, body, until)
            if reply.status == 307 and reply.location:
                waiting.appendleft(self._named(sidecar, reply.location))
                self._doubt()
            elif reply.status == 421:
                # It changed hands: who has it now?
                self._doubt()
                yield from self._routes(until)
                waiting = self._in_turn(user_id, _problem(reply).partition)
            elif not _away(reply.status):
                break
        return reply

    def _routes(self, until: float) -> Steps[None]:
        """Learn who holds which partitions, where there are several sidecars and that is not known."""
        now = time.monotonic()
        if len(self._listed) == 1 or now < self._routes_until:
            return
        self._routes_at = now
        self._routes_until = now + MISSING_SECONDS  # other threads go on with what is known
        holders: dict[int, list[_Sidecar]] = {}
        silent = False
        for sidecar in self._listed:
            now = time.monotonic()
            # None may take what the others need.
            part = now + max(0.0, until - now) / 2
            reply = _Reply(0, b"")
            if sidecar.open(now):
                reply = yield _Attempt(sidecar, "GET", "/v1/partitions", None, part)
            try:
                said = _partitions.decode(reply.body) if reply.status == 200 else None
            except _UNREADABLE:
                said = None
            if said is None:
                silent = True
                continue
            silent = silent or not said.partitions  # it has not reached its broker yet
            self._partitions = said.partitions or self._partitions
            for number in said.held:
                holders.setdefault(number, []).append(sidecar)
        if silent:
            holders = {**self._holders, **holders}
        self._holders = holders
        if not silent:
            self._routes_until = time.monotonic() + ROUTES_SECONDS

    def _holding(self, user_id: str | None, partition: int | None) -> list[_Sidecar]:
        """Those that hold the user's partition, as far as is known, else all."""
        if len(self._listed) == 1:
            return self._listed
        if partition is None and user_id is not None and self._partitions:
            partition = partition_of(user_id, self._partitions)
        return (self._holders.get(partition) if partition is not None else None) or self._listed

    def _in_turn(self, user_id: str | None, partition: int | None) -> deque[_Sidecar]:
        """The same in the order in which to ask them now."""
        waiting = deque(self._holding(user_id, partition))
        waiting.rotate(next(self._turn) % len(waiting))
        return waiting

    def _doubt(self) -> None:
        """What is known of who holds what is wrong, or the user's events are not where Kafka's default puts them."""
        self._routes_until = min(self._routes_until, self._routes_at + MISSING_SECONDS)

    def _named(self, by: _Sidecar, location: str) -> _Sidecar:
        """Whom a redirect names; who sent it, where that is nobody."""
        try:
            parts = urlsplit(urljoin(by.url, location))
        except ValueError:
            return by
        if parts.scheme not in ("http", "https") or not parts.netloc:
            return by
        url = f"{parts.scheme}://{parts.netloc}"
        known = next((each for each in self._listed if each.url == url), None)
        return known or self._others.setdefault(url, _Sidecar(url))

    def _decode(self, decoder: msgspec.json.Decoder[T], reply: _Reply) -> T | None:
        """The answer; None, and counted, where none is of use. Raises Refused."""
        if reply.status == 200:
            try:
                return decoder.decode(reply.body)
            except _UNREADABLE as error:
                reply = _Reply(0, f"the answer is not a sidecar's: {error}".encode())
        if not _away(reply.status) and reply.status not in (307, 421) and 400 <= reply.status < 500:
            raise Refused(_problem(reply))
        said = reply.body.decode(errors="replace")[:200]
        self._lost(f"{reply.status}: {said}" if reply.status else said)
        return None

    def _lost(self, why: str) -> None:
        self.away += 1
        if self._on_away is not None:
            self._on_away(why)

    def _heard(self, attempt: _Attempt, reply: _Reply) -> _Reply:
        """Whether a sidecar is well is judged by its replies."""
        if _away(reply.status):
            attempt.sidecar.failed(time.monotonic())
        else:
            attempt.sidecar.answered()
        return reply

    def _until(self, timeout: float | None) -> float:
        return time.monotonic() + (self.timeout if timeout is None else timeout)


class Client(_Asking):
    """Asks sidecars, from any number of threads."""

    def __init__(
        self,
        urls: str | Iterable[str],
        *,
        token: str | None = None,
        timeout: float = 0.05,
        on_away: Callable[[str], object] | None = None,
    ) -> None:
        """`urls`: one sidecar, or several. `timeout`, in seconds, is for a whole call; `on_away` is told why none answered."""
        super().__init__(urls, token, timeout, on_away)

    def rank(
        self,
        user_id: str,
        candidates: Sequence[Candidate | str],
        *,
        timestamp: int | None = None,
        min_offset: int | None = None,
        partition: int | None = None,
        deadline_ms: int | None = None,
        explain: bool = False,
        market: str | None = None,
        extend: int = 0,
        diversity: float = 0.0,
        timeout: float | None = None,
    ) -> Ranking:
        """The candidates, given in the caller's order, ranked for the user. Raises Refused."""
        request = Request(
            user_id=user_id,
            candidates=_candidates(candidates),
            timestamp=timestamp,
            min_offset=min_offset,
            partition=partition,
            deadline_ms=deadline_ms,
            explain=explain,
            market=market,
            extend=extend,
            diversity=diversity,
        )
        return self._run(self._rank(request, timeout))

    def rank_batch(self, requests: Sequence[Request], *, timeout: float | None = None) -> list[Ranking]:
        """Several lists in one call to each sidecar that has some of the users. Raises Refused."""
        return self._run(self._rank_batch(requests, timeout))

    def recommend(
        self,
        user_id: str,
        *,
        k: int = 10,
        market: str | None = None,
        exclude_seen: bool = False,
        timestamp: int | None = None,
        min_offset: int | None = None,
        partition: int | None = None,
        explain: bool = False,
        timeout: float | None = None,
    ) -> Recommendation:
        """`k` listings that go with the visitor's session. Raises Refused."""
        question = {
            "k": k,
            "market": market,
            "exclude_seen": exclude_seen,
            "timestamp": timestamp,
            "min_offset": min_offset,
            "partition": partition,
            "explain": explain,
        }
        return self._run(self._recommend(user_id, question, timeout))

    def similar(
        self,
        listing_id: str,
        *,
        k: int = 10,
        market: str | None = None,
        user_id: str | None = None,
        exclude_seen: bool = False,
        timeout: float | None = None,
    ) -> SimilarListings:
        """`k` listings near this one, ranked for the user where one is named. Raises Refused."""
        question = {
            "k": k,
            "market": market,
            "user_id": user_id,
            "exclude_seen": "true" if exclude_seen else None,
        }
        return self._run(self._similar(listing_id, question, timeout))

    def close(self) -> None:
        """Close the connections that are not in use."""
        for sidecar in (*self._listed, *self._others.values()):
            while sidecar.idle:
                sidecar.idle.pop().close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        try:
            attempt = next(steps)
            while True:
                attempt = steps.send(self._heard(attempt, self._send(attempt)))
        except StopIteration as end:
            result: T = end.value
            return result

    def _send(self, attempt: _Attempt) -> _Reply:
        idle, url = attempt.sidecar.idle, attempt.sidecar.url
        while True:
            try:
                connection = idle.pop()
            except IndexError:
                connection = None
            used = connection is not None
            try:
                connection = connection or _connection(url)
                return self._exchange(connection, attempt)
            except BaseException as error:
                if connection is not None:
                    connection.close()
                if used and isinstance(error, ConnectionError | http.client.CannotSendRequest):
                    continue  # It was closed while it was idle: another one.
                # UnicodeError is what a host's name raises that can't be one.
                if not isinstance(error, OSError | http.client.HTTPException | UnicodeError):
                    raise
                return _Reply(0, f"{url}: {error or type(error).__name__}".encode(errors="replace"))

    def _exchange(self, connection: http.client.HTTPConnection, attempt: _Attempt) -> _Reply:
        connection.timeout = _left(attempt.until)
        if connection.sock is not None:
            connection.sock.settimeout(connection.timeout)
        connection.request(attempt.method, attempt.path, attempt.body, self._headers)
        connection.response_class = partial(_response, attempt.until)  # type: ignore[assignment]
        with connection.getresponse() as response:
            reply = _Reply(response.status, response.read(), response.getheader("location") or "")
        if connection.sock is not None:  # it stays open
            attempt.sidecar.idle.append(connection)
        return reply


class AsyncClient(_Asking):
    """Asks sidecars with asyncio. Needs aiohttp (`pip install 'insession-client[async]'`)."""

    def __init__(
        self,
        urls: str | Iterable[str],
        *,
        token: str | None = None,
        timeout: float = 0.05,
        on_away: Callable[[str], object] | None = None,
    ) -> None:
        """As `Client` has them."""
        super().__init__(urls, token, timeout, on_away)
        self._session: aiohttp.ClientSession | None = None

    async def rank(
        self,
        user_id: str,
        candidates: Sequence[Candidate | str],
        *,
        timestamp: int | None = None,
        min_offset: int | None = None,
        partition: int | None = None,
        deadline_ms: int | None = None,
        explain: bool = False,
        market: str | None = None,
        extend: int = 0,
        diversity: float = 0.0,
        timeout: float | None = None,
    ) -> Ranking:
        """As `Client.rank`."""
        request = Request(
            user_id=user_id,
            candidates=_candidates(candidates),
            timestamp=timestamp,
            min_offset=min_offset,
            partition=partition,
            deadline_ms=deadline_ms,
            explain=explain,
            market=market,
            extend=extend,
            diversity=diversity,
        )
        return await self._run(self._rank(request, timeout))

    async def rank_batch(self, requests: Sequence[Request], *, timeout: float | None = None) -> list[Ranking]:
        """As `Client.rank_batch`."""
        return await self._run(self._rank_batch(requests, timeout))

    async def recommend(
        self,
        user_id: str,
        *,
        k: int = 10,
        market: str | None = None,
        exclude_seen: bool = False,
        timestamp: int | None = None,
        min_offset: int | None = None,
        partition: int | None = None,
        explain: bool = False,
        timeout: float | None = None,
    ) -> Recommendation:
        """As `Client.recommend`."""
        question = {
            "k": k,
            "market": market,
            "exclude_seen": exclude_seen,
            "timestamp": timestamp,
            "min_offset": min_offset,
            "partition": partition,
            "explain": explain,
        }
        return await self._run(self._recommend(user_id, question, timeout))

    async def similar(
        self,
        listing_id: str,
        *,
        k: int = 10,
        market: str | None = None,
        user_id: str | None = None,
        exclude_seen: bool = False,
        timeout: float | None = None,
    ) -> SimilarListings:
        """As `Client.similar`."""
        question = {
            "k": k,
            "market": market,
            "user_id": user_id,
            "exclude_seen": "true" if exclude_seen else None,
        }
        return await self._run(self._similar(listing_id, question, timeout))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        try:
            attempt = next(steps)
            while True:
                attempt = steps.send(self._heard(attempt, await self._send(attempt)))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _send(self, attempt: _Attempt) -> _Reply:
        import aiohttp

        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        url, again = attempt.sidecar.url + attempt.path, True
        while True:
            try:
                async with self._session.request(
                    attempt.method,
                    url,
                    data=attempt.body,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=_left(attempt.until)),
                ) as response:
                    body = await response.read()
                    return _Reply(response.status, body, response.headers.get("location", ""))
            except (aiohttp.ClientError, OSError, UnicodeError) as error:
                if again and _was_idle(error):
                    again = False
                    continue
                return _Reply(0, f"{attempt.sidecar.url}: {error or type(error).__name__}".encode())


def _was_idle(error: Exception) -> bool:
    """Whether a connection broke that may have been closed while it was idle, and not one that could not be made."""
    import aiohttp

    return isinstance(
        error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError
    ) and not isinstance(error, aiohttp.ClientConnectorError)


class _Until(io.RawIOBase):
    """Reads from a socket until a moment (time.monotonic), however slowly what comes drips."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        # Holds the socket open where the connection lets go of it, as it does when `connection: close` comes.
        self._sock, self._file, self._until = sock, sock.makefile("rb", buffering=0), until

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, 1 << 16)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._until))
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


def _response(until: float, sock: socket.socket, **named: Any) -> http.client.HTTPResponse:
    return http.client.HTTPResponse(_Until(sock, until), **named)  # type: ignore[arg-type]


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.netloc)


def _left(until: float) -> float:
    """Raises TimeoutError where nothing is left."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _away(status: int) -> bool:
    """No answer, too slow, too busy, or a failure: nothing that the caller could do better."""
    return status in (0, 408, 429) or status >= 500


def _problem(reply: _Reply) -> _Problem:
    try:
        return _problems.decode(reply.body)
    except _UNREADABLE:
        return _Problem(status=reply.status, detail=reply.body.decode(errors="replace")[:200])


def _deadline_ms(until: float) -> int:
    return max(1, min(10_000, int((until - time.monotonic()) * 1000 * DEADLINE)))


def _with_deadline(request: Request, until: float) -> Request:
    if request.deadline_ms is not None:
        return request
    return msgspec.structs.replace(request, deadline_ms=_deadline_ms(until))


def _candidates(given: Sequence[Candidate | str]) -> tuple[Candidate, ...]:
    return tuple([each if isinstance(each, Candidate) else Candidate(each) for each in given])


def _ranking(request: Request, answer: _RankAnswer | None) -> Ranking:
    given = request.candidates
    if answer is None:
        results = [
            Ranked(listing_id=candidate.listing_id, position=place, caller_position=place)
            for place, candidate in enumerate(given, 1)
        ]
        return Ranking(outcome=AWAY, results=results, user_id=request.user_id, given=given)
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
        given=given,
    )


def _result(ranked: Ranked, given: Candidate | None) -> dict[str, Any]:
    result = {
        "listing_id": ranked.listing_id,
        "position": ranked.position,
        "caller_position": ranked.caller_position,
        "caller_score": given.score if given else None,
        "price": given.price if given else None,
    }
    return {key: value for key, value in result.items() if value is not None}
