"""Asks sidecars from threads."""

from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from .answers import Ranking, Recommendation, SimilarListings
from .asking import Asking
from .questions import Candidate, Request
from .questions import candidates as as_candidates
from .steps import Attempt, Reply, Steps, left

T = TypeVar("T")


class Client(Asking):
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
            candidates=as_candidates(candidates),
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
        for sidecar in self._routes.sidecars:
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
                attempt = steps.send(self._send(attempt))
        except StopIteration as end:
            result: T = end.value
            return result

    def _send(self, attempt: Attempt) -> Reply:
        idle = attempt.sidecar.idle
        while True:
            try:
                connection = idle.pop()
            except IndexError:
                connection = None
            used = connection is not None
            try:
                connection = connection or _connection(attempt.sidecar.url)
                return self._exchange(connection, attempt)
            except BaseException as error:
                if connection is not None:
                    connection.close()
                if used and isinstance(error, ConnectionError | http.client.CannotSendRequest):
                    continue  # It was closed while it was idle: another one.
                # UnicodeError is what a host's name raises that can't be one.
                if not isinstance(error, OSError | http.client.HTTPException | UnicodeError):
                    raise
                return Reply(0, str(error or type(error).__name__).encode(errors="replace"))

    def _exchange(self, connection: http.client.HTTPConnection, attempt: Attempt) -> Reply:
        connection.timeout = left(attempt.until)
        if connection.sock is not None:
            connection.sock.settimeout(connection.timeout)
        connection.request(attempt.method, attempt.sidecar.path + attempt.path, attempt.body, self._headers)
        connection.response_class = partial(_response, attempt.until)  # type: ignore[assignment]
        with connection.getresponse() as response:
            reply = Reply(response.status, response.read(), response.getheader("location") or "")
        if connection.sock is not None:  # it stays open
            attempt.sidecar.idle.append(connection)
        return reply


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
        self._sock.settimeout(left(self._until))
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
