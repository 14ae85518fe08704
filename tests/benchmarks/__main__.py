"""`make bench`: run the benchmarks, or the one named, print a table and write build/bench.json."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import msgspec

from tests.benchmarks import (
    click_to_rank,
    click_to_vector,
    encoder,
    marketplace,
    million,
    offline,
    rank_core,
    recovery,
    sidecar,
    soak,
    train_vs_gensim,
    worker,
)
from tests.benchmarks.result import Result

BENCHMARKS = {
    "rank_core": rank_core.run,
    "session_encode": encoder.run,
    "sidecar_vs_bare_asgi": sidecar.run,
    "rank_p99_half_load": sidecar.run,
    "worker_vs_bare_faust": worker.run,
    "worker_two_vs_one": worker.run,
    "click_to_vector_p50": click_to_vector.run,
    "click_to_vector_p99": click_to_vector.run,
    "replay_offline": offline.run,
    "marketplace_events": marketplace.run,
    "marketplace_import": marketplace.run,
    "recovery_cold": recovery.run,
    "recovery_warm": recovery.run,
    "sidecar_cold_start": million.run,
    "sidecar_warm_start": million.run,
    "sidecar_memory_1m_users": million.run,
    "click_to_rank_p50": click_to_rank.run,
    "click_to_rank_p99": click_to_rank.run,
    "train_vs_gensim": train_vs_gensim.run,
}
BY_NAME = {"soak": soak.run}
"""Those that take so long that they run only when named."""
OUT = Path("build/bench.json")


def main() -> None:
    names = sys.argv[1:] or list(BENCHMARKS)
    every = BENCHMARKS | BY_NAME
    unknown = [name for name in names if name not in every]
    if unknown:
        sys.exit(f"no benchmark {unknown[0]}; there are {', '.join(every)}")
    results: list[Result] = []
    for run in dict.fromkeys(every[name] for name in names):
        results += run()
    machine = {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "kafka": "Apache Kafka" if os.environ.get("KAFKA_HOME") else "embedded",
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_bytes(msgspec.json.format(msgspec.json.encode({"machine": machine, "results": results})))
    for result in results:
        against = (
            f"   {result.ratio:.2f} of {result.against} ({result.against_value:,.1f})"
            if result.against
            else ""
        )
        note = f"   {result.note}" if result.note else ""
        print(f"{result.name:24} {result.value:12,.1f} {result.unit}{against}{note}")


main()
