"""sidecar_cold_start, sidecar_warm_start, sidecar_memory_1m_users: a sidecar of a million users, started from nothing and again.

The topics are filled as for `recovery_cold`. INSESSION_BENCH_USERS makes it fewer.
"""

from __future__ import annotations

import http.client
import os
import re
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import msgspec

from insession.processes import Process, insession
from models import bundle
from models.rank import Candidate
from models.topics import Topics
from serving.api import RankRequest, Readiness
from streams import broker, topics
from tests.benchmarks.recovery import PARTITIONS, START, USERS, fill
from tests.benchmarks.result import Result
from tests.benchmarks.sidecar import remembered
from tests.made import a_bundle

ASKED = 20_000
SECONDS = 900.0


def run() -> list[Result]:
    home = os.environ.get("KAFKA_HOME")
    users = int(os.environ.get("INSESSION_BENCH_USERS", USERS))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        bundle.write(folder / "bundles", a_bundle(5_000, 32))
        loaded = bundle.load(folder / "bundles")
        running = stack.enter_context(broker.run(Path(home) if home else None))
        client: topics.Client = {"bootstrap.servers": running.bootstrap}
        names = Topics("bench-")
        topics.ensure(client, names, partitions=PARTITIONS, retention_ms=-1)
        fill(client, names, loaded, users)
        flags = ["--bootstrap", running.bootstrap, "--topic-prefix", names.prefix, "--port", "0"]
        flags += ["--bundle", str(folder / "bundles"), "--state", str(folder / "state")]
        results = []
        for name in ("sidecar_cold_start", "sidecar_warm_start"):
            started = time.perf_counter()
            with insession("serve", *flags, ready="serving on", log=folder / "serve.log") as process:
                url = process.line.split()[-1]
                _until_ready(url, users)
                seconds = time.perf_counter() - started
                most, now = memory(process)
                note = f"{users:,} users; {now:,.0f} MB then, {most:,.0f} MB at most"
                results.append(Result(name=name, value=seconds, unit="s", note=note))
                _ask(url, users)
                remembered(url, users)
                most, now = memory(process)
        note = f"resident with all in memory, {ASKED:,} of them asked for; {most:,.0f} MB at most since the warm start"
        results.append(Result(name="sidecar_memory_1m_users", value=now, unit="MB", note=note))
        return results


def memory(process: Process) -> tuple[float, float]:
    """What the process had in memory at most, and has now, MB."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    most, now = (int(re.findall(rf"{name}:\s+(\d+)", status)[0]) / 1024 for name in ("VmHWM", "VmRSS"))
    return most, now


def _until_ready(url: str, users: int) -> None:
    until = time.monotonic() + SECONDS
    while True:
        status, body = _exchange(url, "GET", "/readyz")
        if status == 200:
            assert msgspec.json.decode(body, type=Readiness).users == users
            return
        assert time.monotonic() < until, body
        time.sleep(0.02)


def _ask(url: str, users: int) -> None:
    candidates = tuple(Candidate(f"l{number}") for number in range(25))
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    for number in range(ASKED):
        user = f"visitor-{number * 7919 % users:07}"
        request = RankRequest(user_id=user, candidates=candidates, timestamp=START + 200_000)
        connection.request("POST", "/v1/rank", msgspec.json.encode(request))
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200
        assert b'"outcome":"ranked"' in body
    connection.close()


def _exchange(url: str, method: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body
