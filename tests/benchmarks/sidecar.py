"""sidecar_vs_bare_asgi: /v1/rank with 200 candidates on one connection, against a bare application on the same server.

Bare decodes the same body with msgspec and answers fixed bytes of the same length. The two are asked in turns.
"""

from __future__ import annotations

import http.client
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from confluent_kafka import Producer

from insession.running import running
from models import bundle
from models.events import Click, encode
from models.rank import Candidate
from models.recording import partition_of
from serving.api import RankRequest
from streams.broker import end
from tests.benchmarks.result import Result, compared
from tests.made import a_bundle

ROUNDS, REQUESTS = 6, 1_000
BARE = Path(__file__).with_name("bare_asgi.py")


def run() -> list[Result]:
    home = os.environ.get("KAFKA_HOME")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        bundle.write(folder, a_bundle(5_000, 32))
        place = running(folder, kafka_home=Path(home) if home else None, partitions=2)
        client, names, sidecar = stack.enter_context(place)
        producer = Producer({**client, "log_level": 0})
        now = int(time.time() * 1000)
        for number in range(8):
            event = Click(
                event_id=str(number), user_id="u", timestamp=now + number, listing_id=f"l{number * 7}"
            )
            producer.produce(
                names.clicks, key=b"u", value=encode(event), partition=partition_of(b"u", 2), timestamp=now
            )
        producer.flush()
        candidates = tuple(Candidate(f"l{number}") for number in range(200))
        request = RankRequest(user_id="u", candidates=candidates, min_offset=7, deadline_ms=10_000)
        answer = sidecar.rank(request)
        assert answer.outcome == "ranked"
        length = len(msgspec.json.encode(answer))
        bare = subprocess.Popen([sys.executable, str(BARE), str(length)], stdout=subprocess.PIPE)
        stack.callback(end, bare)
        assert bare.stdout is not None
        url = bare.stdout.readline().decode().strip()
        body = msgspec.json.encode(msgspec.structs.replace(request, min_offset=None))
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(_rate(sidecar.url, body))
            theirs.append(_rate(url, body))
    return [
        compared(
            "sidecar_vs_bare_asgi",
            statistics.median(ours),
            "requests/s",
            "bare ASGI",
            statistics.median(theirs),
        )
    ]


def _rate(url: str, body: bytes) -> float:
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    started = time.perf_counter()
    for _ in range(REQUESTS):
        connection.request("POST", "/v1/rank", body)
        connection.getresponse().read()
    seconds = time.perf_counter() - started
    connection.close()
    return REQUESTS / seconds
