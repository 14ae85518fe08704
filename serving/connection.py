"""A client's connection: uvicorn's, with limits on what may come and how long that may take.

A look at all of them once a second does it, so that a request pays for none of this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
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


class Connection(HttpToolsProtocol):
    """Reads requests and hands them to the application."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self.loop.time()
        """When the request began to come; 0 while none is on its way."""
        self._unfetched = 0.0
        """Since when a part of an answer waits to be fetched; 0 where none does."""
        self._size = 0
        self._in_head = True
        self._answering: RequestResponseCycle | None = None

    def data_received(self, data: bytes) -> None:
        self._size += len(data)
        super().data_received(data)
        if len(self.pipeline) > MAX_PIPELINED:
            self._refuse(Refused(413, f"more than {MAX_PIPELINED} requests wait on one connection"))
        elif self._size > MAX_HEAD:
            if self._in_head:
                self._refuse(Refused(431, f"the request line and headers have more than {MAX_HEAD} bytes"))
            elif self._since and self._size > MAX_REQUEST:
                self._refuse(Refused(413, f"the request has more than {MAX_REQUEST} bytes"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._since = self.loop.time()
        self._size = 0
        self._in_head = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._since = 0.0

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
        if self._since and now - self._since > SECONDS:
            answering = self._answering
            waits = answering is None or answering.response_complete
            if self.scope is None or (waits and not self._in_head):
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
