"""A worker's own small HTTP: /healthz, /readyz and /metrics, for a supervisor and Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import msgspec
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from models.errors import UserError


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serve(
    registry: CollectorRegistry, reasons: Callable[[], list[str]], host: str, port: int
) -> Iterator[int]:
    """Answer on `host` and `port` (0: a free one, which is given) in a thread of its own until the end of the `with`.

    `reasons` says why the worker is not ready; it is while there are none. UserError where the port is taken.
    """
    metrics = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            return metrics(environ, start)  # type: ignore[no-any-return]
        body: dict[str, object]
        if path == "/healthz":
            status, body = "200 OK", {"status": "ok"}
        elif path == "/readyz":
            why = reasons()
            status = "503 Service Unavailable" if why else "200 OK"
            body = {"ready": not why, "reasons": why}
        else:
            status, body = "404 Not Found", {"detail": "there are /healthz, /readyz and /metrics"}
        content = msgspec.json.encode(body)
        start(status, [("Content-Type", "application/json"), ("Content-Length", str(len(content)))])
        return [content]

    try:
        server = make_server(host, port, answer, server_class=ThreadingWSGIServer, handler_class=_Quiet)
    except OSError as error:
        raise UserError(f"can't listen on {host}:{port}: {error.strerror}; choose another port") from None
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
