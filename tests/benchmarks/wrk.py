"""Load from wrk, and which core whoever is started runs on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

SCRIPT = Path(__file__).with_name("rank.lua")
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
MISSING = "wrk is missing, so the sidecar's speed is not measured: apt-get install wrk"


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What wrk counted; times in ms. `errors` are answers that are not 2xx or 3xx, and requests without an answer."""

    requests: int
    seconds: float
    mean: float
    p50: float
    p99: float
    most: float
    errors: int

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


class Lists(msgspec.Struct, frozen=True, kw_only=True):
    """Lists of candidates in a file, a line each, for users `visitor-0000000` and on."""

    path: Path
    users: int


def found() -> bool:
    """Whether wrk is installed; says how to get it where not."""
    if shutil.which("wrk"):
        return True
    print(MISSING)
    return False


def load(url: str, lists: Lists, *, connections: int, seconds: float, wait_ms: float = 0) -> Load:
    """Ask `/v1/rank` on so many connections for so long, each waiting `wait_ms` on average before it asks again."""
    ran = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds:.0f}s"),
            *("--timeout", "10s", "--latency", "--script", str(SCRIPT), url),
            *("--", str(lists.path), str(lists.users), f"{wait_ms:.3f}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return msgspec.json.decode(ran.stdout.strip().splitlines()[-1], type=Load)


def at_rate(url: str, lists: Lists, rate: float, *, connections: int, seconds: float) -> Load:
    """Ask so many times a second, which must be less than is possible: a first try says how long to wait."""
    wait = connections / rate * 1000
    tried = load(url, lists, connections=connections, seconds=1, wait_ms=wait)
    wait = max(0.001, wait - tried.mean)
    return load(url, lists, connections=connections, seconds=seconds, wait_ms=wait)


@contextmanager
def on_core(number: int) -> Iterator[None]:
    """What is started within runs on this core alone; on a machine with one, or elsewhere than on Linux, anywhere."""
    if len(CORES) < 2:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CORES[number]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
