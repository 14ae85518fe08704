"""replay_offline: events/s of a recording run without a broker, file to result, on one core."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from insession.offline import run as offline
from models import bundle
from tests.benchmarks.recorded import marketplace
from tests.benchmarks.result import Result

VISITS, ROUNDS = 20_000, 3


def run() -> list[Result]:
    with TemporaryDirectory() as name:
        path, bundles, events = marketplace(Path(name), VISITS)
        loaded = bundle.load(bundles)
        rates = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            offline(path, loaded, keep=False)
            rates.append(events / (time.perf_counter() - started))
    return [
        Result(
            name="replay_offline", value=statistics.median(rates), unit="events/s", note=f"{events:,} events"
        )
    ]
