"""A client's connection: uvicorn's, with limits on what may come and how long that may take.

A look at all of them once a second does it, so that a request pays for none of this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

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

    def data_received(self, data: bytes) -> None:
        self._size += len(data)
        super().data_received(data)
        if self._size > MAX_HEAD:
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

    def look(self, now: float) -> None:
        """End it where a request does not come, or an answer is not fetched."""
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            self._unfetched = self._unfetched or now
            if now - self._unfetched > SECONDS:
                self.transport.abort()
            return
        self._unfetched = 0.0
        if self._since and now - self._since > SECONDS:
            if self.pipeline:
                self._since = now  # it is us whom it waits for
            elif self.scope is None or (self.cycle.response_complete and not self._in_head):
                self.transport.close()  # nothing has come, or only what was answered already
            else:
                self._refuse(Refused(408, f"the request did not come within {SECONDS:.0f} s"))

    def _refuse(self, refused: Refused) -> None:
        """Answer what never becomes a request, and close."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete and self.cycle.response_started:
            self.transport.abort()
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
