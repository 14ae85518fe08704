"""Stand-ins for a sidecar: they answer as they are told, and keep what they were asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from models import recording

LISTINGS = [f"l{number}" for number in range(20)]
USERS = [f"user-{number}" for number in range(24)]
Answer = tuple[int, Any, dict[str, str]]


class StandIn:
    """A sidecar that answers as it is told, and keeps what it was asked."""

    def __init__(self, answer: Callable[[str, Any], Answer]) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.hangs_up = False
        """Whether it closes the connection after an answer without saying so."""
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                stand_in.asked.append(self.path)
                stand_in.headers.append({name.lower(): value for name, value in self.headers.items()})
                status, content, headers = stand_in.answer(self.path, json.loads(body) if body else None)
                sent = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)
                if stand_in.hangs_up:
                    self.close_connection = True

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                pass  # a client that did not wait

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def stand_in(answer: Callable[[str, Any], Answer]) -> Iterator[StandIn]:
    made = StandIn(answer)
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


def ranked(path: str, body: Any) -> Answer:
    """The candidates the other way round."""
    if path == "/v1/rank/batch":
        return 200, {"answers": [ranked("", each)[1] for each in body["requests"]], "took_ms": 1.0}, {}
    listed = [candidate["listing_id"] for candidate in body["candidates"]]
    results = [
        {"listing_id": listing, "position": place, "caller_position": len(listed) + 1 - place, "score": 0.5}
        for place, listing in enumerate(reversed(listed), 1)
    ]
    answer = {
        "rank_id": body["user_id"],
        "bundle": "b",
        "variant": "v",
        "propensity": 0.1,
        "outcome": "ranked",
        "state": None,
        "stale": False,
        "took_ms": 0.2,
        "results": results,
    }
    return 200, answer, {}


def problem(status: int, **also: object) -> Answer:
    said = {"type": "urn:insession:problem:x", "title": "t", "status": status, "detail": "d", **also}
    return status, said, {"content-type": "application/problem+json"}


def holding(
    numbers: list[int], elsewhere: Callable[[int], Answer], peers: dict[str, list[int]] | None = None
) -> Callable[[str, Any], Answer]:
    """A sidecar of four partitions that holds some, and answers for others' users as told; in a batch, that it does not."""

    def holds(asked: Any) -> bool:
        return recording.partition_of(asked["user_id"].encode(), 4) in numbers

    def answer(path: str, body: Any) -> Answer:
        if path == "/v1/partitions":
            return 200, {"partitions": 4, "held": numbers, "peers": peers or {}, "how": "murmur2"}, {}
        if path == "/v1/rank/batch":
            answers = [ranked("", each)[1] if holds(each) else not_held(each) for each in body["requests"]]
            return 200, {"answers": answers}, {}
        if holds(body):
            return ranked(path, body)
        return elsewhere(recording.partition_of(body["user_id"].encode(), 4))

    return answer


def not_held(request: Any) -> dict[str, Any]:
    """The answer to one of a batch whose user is another's."""
    results = [
        {"listing_id": candidate["listing_id"], "position": place, "caller_position": place}
        for place, candidate in enumerate(request["candidates"], 1)
    ]
    return {"rank_id": "r", "bundle": "b", "outcome": "not-held", "results": results}


def lost(number: int) -> Answer:
    return problem(421, partition=number)
