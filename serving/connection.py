"""A client's connection: uvicorn's, with a shorter way for what need not wait, and with limits on what may come and how
long that may take.

A look at all of them once a second does the latter, so that a request pays for none of it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from serving.problems import MAX_BATCH_BODY, PROBLEM, Refused

SECONDS = 10.0
"""How long a request may take to come, and an answer to be fetched."""
IDLE_SECONDS = 75
"""How long a connection may stay open without a request: longer than the pools of most clients keep one."""
LOOK_SECONDS = 1.0
MAX_HEAD = 1 << 16
"""Bytes of a request's line and headers,"""
MAX_REQUEST = 8 * MAX_BATCH_BODY
"""and of all of it: bodies that come in small chunks are some times larger on their way."""
MAX_PIPELINED = 100
"""Requests that may wait for the one before them on a connection."""

MAX_DIRECT = 1 << 18
"""Bytes of a body that is answered the short way."""

Headers = list[tuple[bytes, bytes]]
Parts = tuple[bytes | memoryview, ...]
Direct = Callable[[bytes, Headers], Parts | None]
"""Answers a POST at once, from its body and headers, with the parts of a 200's JSON; None: this is for the application."""

_HEAD = STATUS_LINE[200] + b"content-type: application/json\r\ncontent-length: %d\r\n%b\r\n"


_UPGRADE = re.compile(rb"\r\nupgrade(?=:)", re.IGNORECASE)


class _Refusal(Exception):
    """The request is refused already: nothing more of it is read."""


def _not_upgraded(data: bytes) -> bytes:
    """The data without a wish for another protocol in its head.

    Whoever does not know that protocol is to answer as if it were not there (RFC 9110, 7.8), as Java's client and curl's
    `--http2` rely on; but the parser takes what follows for that protocol's, the body too.
    """
    end = data.find(b"\r\n\r\n")
    if data.find(b"rade:", 0, end) < 0 and data.find(b"RADE:", 0, end) < 0:
        return data
    head = data if end < 0 else data[:end]
    # By a name as long: wherever the head ends, no byte of the body moves.
    return _UPGRADE.sub(b"\r\nX-grade", head) + data[len(head) :]


class Connection(HttpToolsProtocol):
    """Reads requests and hands them to the application.

    Where the application has an attribute `direct`, a `Direct` by address, those POSTs are answered without it: with
    no scope, no task and no messages in between, which would cost as much as the answer itself.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._directs: Mapping[bytes, Direct] = getattr(self.app, "direct", {})
        self._direct: Direct | None = None
        """What answers the request that is coming, where that is the short way,"""
        self._body = b""
        """and what has come of its body."""
        self._ending = False
        """No more than this request is answered."""
        self._idle = 0.0
        """Since when nothing is asked, after an answer that took the short way; 0 where something is."""
        self._begun = False
        self._since = self.loop.time()
        """When the request began to come; 0 while none is on its way."""
        self._unfetched = 0.0
        """Since when a part of an answer waits to be fetched; 0 where none does."""
        self._size = self._chunk = 0
        self._in_head = True
        self._answering: RequestResponseCycle | None = None

    def data_received(self, data: bytes) -> None:
        self._size += len(data)
        self._chunk = len(data)
        if self._in_head or not self._since:
            data = _not_upgraded(data)
        super().data_received(data)
        if len(self.pipeline) > MAX_PIPELINED:
            self._refuse(Refused(413, f"more than {MAX_PIPELINED} requests wait on one connection"))
        elif self._size > MAX_HEAD:
            if self._in_head:
                self._refuse(Refused(431, f"the request line and headers have more than {MAX_HEAD} bytes"))
            elif self._since and self._size > MAX_REQUEST:
                self._refuse(Refused(413, f"the request has more than {MAX_REQUEST} bytes"))

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._since = self.loop.time()
        self._size = 0
        self._idle = 0.0
        self._begun = self._in_head = True

    def on_headers_complete(self) -> None:
        if self.transport.is_closing():
            raise _Refusal
        if self._size + self._chunk > MAX_HEAD:  # or less, as some of it may be the body's
            head = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if head > MAX_HEAD:
                self._refuse(Refused(431, f"the request line and headers have more than {MAX_HEAD} bytes"))
                raise _Refusal
        self._in_head = False
        direct = self._directs.get(self.url)
        if direct is not None and 0 <= self._announced() <= MAX_DIRECT and self._plain():
            self._direct = direct
        else:
            self._hand_over()

    def on_body(self, body: bytes) -> None:
        if self._direct is None:
            super().on_body(body)
            return
        self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        self._since = 0.0
        if self._direct is not None:
            answer = self._direct(self._body, self.headers)
            if answer is not None:
                self._direct, self._body = None, b""
                self._answer(answer)
                return
            self._hand_over()
        super().on_message_complete()

    def _announced(self) -> int:
        """How many bytes the body is said to have; -1 where that is not said, as of one that comes in chunks."""
        for name, value in self.headers:
            if name == b"content-length" and len(value) < 20:
                return int(value)
        return -1

    def _plain(self) -> bool:
        """Whether the request can be answered at once: nothing is before it, and nothing special about it."""
        return (
            self.parser.get_method() == b"POST"
            and (self.cycle is None or self.cycle.response_complete)
            and not self.pipeline
            and not self.expect_100_continue
            and not self.parser.should_upgrade()
            and self.parser.get_http_version() != "1.0"
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _hand_over(self) -> None:
        """Begin the request as uvicorn does, with what has come of it."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        body, self._body, self._direct = self._body, b"", None
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()
        if body:
            super().on_body(body)
        if self._ending:
            self.shutdown()

    def _answer(self, parts: Parts) -> None:
        self.server_state.total_requests += 1
        stays = self.parser.should_keep_alive() and not self._ending
        head = _HEAD % (sum(map(len, parts)), b"" if stays else b"connection: close\r\n")
        self.transport.write(b"".join((head, *parts)))
        if stays:
            self._idle = self.loop.time()
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """End once what is being asked has been answered."""
        if self._direct is not None:
            self._ending = True
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        self._refuse(Refused(400, "this is not HTTP/1.1 as it must be"))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # uvicorn tells the newest request only, which may stand in line behind this one.
        self.pipeline.clear()
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def look(self, now: float) -> None:
        """End it where a request does not come, or an answer is not fetched."""
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            self._unfetched = self._unfetched or now
            if now - self._unfetched > SECONDS:
                self.transport.abort()
            return
        self._unfetched = 0.0
        if self._idle and now - self._idle > IDLE_SECONDS:
            self.transport.close()
        elif self._since and now - self._since > SECONDS:
            answering = self._answering
            waits = answering is None or answering.response_complete
            if not self._begun or (waits and not self._in_head and self._direct is None):
                self.transport.close()  # nothing has come, or only what was answered already
            elif waits or (answering is self.cycle and not self._in_head):
                self._refuse(Refused(408, f"the request did not come within {SECONDS:.0f} s"))
            else:
                self._since = now  # it is us whom it waits for

    def _refuse(self, refused: Refused) -> None:
        """Answer what never becomes a request, and close."""
        if self.transport.is_closing():
            return
        answering = self._answering
        if (
            answering is not None
            and not answering.response_complete
            and (answering is not self.cycle or self._in_head or answering.response_started)
        ):
            answering.keep_alive = False  # what came before it is answered yet
            self.pipeline.clear()
            return
        body = refused.body
        self.transport.write(
            STATUS_LINE[refused.problem.status]
            + b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            % (PROBLEM.encode(), len(body))
            + body
        )
        self.transport.close()


def look(connections: Iterable[Any], now: float) -> None:
    """Look at all of a server's connections; `now` is the event loop's time."""
    for connection in list(connections):
        connection.look(now)
