"""marketplace_events, marketplace_import: events/s of the simulated marketplace, as events and as a recording, on one core."""

from __future__ import annotations

import statistics
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from insession.processes import COMMAND
from models.datasets.marketplace import Marketplace
from tests.benchmarks.result import Result

VISITS, ROUNDS = 40_000, 3
FULL = 50_000.0
"""Events/s that both are to reach."""


def run() -> list[Result]:
    market = Marketplace(1)
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        events = sum(1 for _ in market.events(VISITS))
        rates.append(events / (time.perf_counter() - started))
    imported = []
    with TemporaryDirectory() as folder:
        out = Path(folder) / "sim.jsonl.zst"
        command = [*COMMAND, "import", "marketplace", "--visits", str(VISITS), "--out", str(out), "--json"]
        for _ in range(ROUNDS):
            started = time.perf_counter()
            done = subprocess.run(command, check=True, capture_output=True)
            imported.append(msgspec.json.decode(done.stdout)["records"] / (time.perf_counter() - started))
        size = out.stat().st_size
    return [
        _result("marketplace_events", rates, f"{events:,} events of {VISITS:,} visits, made and thrown away"),
        _result(
            "marketplace_import",
            imported,
            f"`insession import marketplace`, its start and the listings too; {size / 1e6:.0f} MB",
        ),
    ]


def _result(name: str, rates: list[float], note: str) -> Result:
    rate = statistics.median(rates)
    return Result(
        name=name,
        value=rate,
        unit="events/s",
        against="what it is to reach",
        against_value=FULL,
        ratio=rate / FULL,
        note=note,
    )
