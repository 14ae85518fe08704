"""Asking a sidecar over HTTP, for the demo and the online evaluation."""

from __future__ import annotations

import http.client
import time
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from models.errors import UserError
from serving.api import Problem, RankRequest, RankResponse, Readiness

READY_SECONDS = 60.0

T = TypeVar("T")


class Sidecar:
    """One connection to a sidecar; not for several threads at once."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)

    def rank(self, request: RankRequest) -> RankResponse:
        """Ask `/v1/rank`. UserError where it refuses, or nobody answers."""
        return self._call("POST", "/v1/rank", msgspec.json.encode(request), RankResponse)

    def wait_until_ready(self) -> None:
        """Wait until it has caught up. UserError with its reasons where that takes too long."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            status, body = self._exchange("GET", "/readyz", None)
            if status == 200:
                return
            if time.monotonic() > deadline:
                reasons = ", ".join(msgspec.json.decode(body, type=Readiness).reasons)
                raise UserError(
                    f"the sidecar at {self.url} was not ready in {READY_SECONDS:.0f} s: {reasons}"
                )
            time.sleep(0.05)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _call(self, method: str, path: str, body: bytes | None, answer: type[T]) -> T:
        status, content = self._exchange(method, path, body)
        if status != 200:
            problem = msgspec.json.decode(content, type=Problem)
            where = f" at {problem.field}" if problem.field else ""
            raise UserError(
                f"the sidecar refused {path} with {status}: {problem.detail or problem.title}{where}"
            )
        return msgspec.json.decode(content, type=answer)

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        try:
            self._connection.request(method, path, body, {"content-type": "application/json"})
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise UserError(f"no sidecar answers at {self.url}: {error}") from None
