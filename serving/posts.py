"""A POST route without a framework on its way: the body is read, decoded, answered and measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.metrics import Metrics
from serving.problems import Gone, Refused, read

log = logging.getLogger("insession.serving")

T = TypeVar("T")
Answer = Callable[[T, int, float], Awaitable[tuple[str, bytes]]]
"""Takes a request, the clock (ms) and when it came (time.perf_counter); gives the outcome and the JSON answer."""

_JSON = (b"content-type", b"application/json")


def post(name: str, decode: Callable[[bytes], T], answer: Answer[T], metrics: Metrics, limit: int) -> ASGIApp:
    """The route as an ASGI application; a body may have `limit` bytes. `decode` raises Refused where it is wrong."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        begun = time.perf_counter()
        try:
            body = await read(scope, receive, limit)
            if scope["query_string"]:
                raise Refused(400, "this takes no parameters", field="?")
            outcome, said = await answer(decode(body), time.time_ns() // 1_000_000, begun)
        except Refused as refused:
            outcome = refused.outcome
            await refused.response()(scope, receive, send)
        except Gone:
            outcome = "gone"
        except Exception:
            log.exception("%s failed", name)
            outcome = "error"
            await Refused(500, "see the sidecar's log").response()(scope, receive, send)
        else:
            headers = [_JSON, (b"content-length", b"%d" % len(said))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": said})
        metrics.observe(name, outcome, time.perf_counter() - begun)

    return application
