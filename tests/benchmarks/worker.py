"""worker_vs_bare_faust, worker_two_vs_one: events/s of a worker, transactions included, against Faust that only takes them.

One broker, one recording of simulated visits, searches and all. Bare is the same Faust with the same settings, taking
the events in batches, undecoded, from a topic that is full, and doing nothing; workers wait on an empty topic, and the
time that producing the recording takes counts against them. Each is measured three times in turn, and the median taken.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from insession.processes import Process, insession
from models.topics import Topics
from streams import broker, topics
from streams.broker import end
from streams.reader import reader
from streams.replay import replay
from tests.benchmarks.recorded import PARTITIONS, marketplace
from tests.benchmarks.result import Result, compared
from tests.checkpoints import Checkpoints

VISITS, ROUNDS, PATIENCE = 8_000, 3, 120.0
BARE = Path(__file__).with_name("bare_faust.py")


def run() -> list[Result]:
    home = os.environ.get("KAFKA_HOME")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        path, bundles, events = marketplace(folder, VISITS)
        running = stack.enter_context(broker.run(Path(home) if home else None))
        client: topics.Client = {"bootstrap.servers": running.bootstrap}
        recorded = Topics("bare-")
        topics.ensure(client, recorded, partitions=PARTITIONS, retention_ms=-1)
        replay(client, path, recorded.clicks, lambda done: None)
        bare, one, two, notes = [], [], [], []
        for number in range(ROUNDS):
            bare.append(events / bare_seconds(running.bootstrap, recorded.clicks, events))
            for workers, rates in ((1, one), (2, two)):
                if workers == 2 and not home:
                    continue  # the embedded broker serves one
                names = Topics(f"round-{number}-{workers}-")
                topics.ensure(client, names, partitions=PARTITIONS, retention_ms=-1)
                seconds, note = worker_seconds(client, names, bundles, folder, path, events, workers)
                rates.append(events / seconds)
                if workers == 1:
                    notes.append(note)
                topics.delete(client, names)
    results = [
        compared(
            "worker_vs_bare_faust",
            statistics.median(one),
            "events/s",
            "bare Faust",
            statistics.median(bare),
            note=f"{events:,} events; {notes[0]}",
        )
    ]
    if two:
        results.append(
            compared(
                "worker_two_vs_one", statistics.median(two), "events/s", "one worker", statistics.median(one)
            )
        )
    return results


def bare_seconds(bootstrap: str, topic: str, events: int) -> float:
    """From the first to the last event taken by bare Faust."""
    bare = subprocess.Popen(
        [sys.executable, str(BARE), bootstrap, topic, str(events)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert bare.stdout is not None
        return float(bare.stdout.readline())
    finally:
        end(bare)


def worker_seconds(
    client: topics.Client, names: Topics, bundles: Path, folder: Path, path: Path, events: int, workers: int
) -> tuple[float, str]:
    """From the first event produced, as fast as the broker takes them, to the last applied; and where the time went."""
    with ExitStack() as stack:
        seen = Checkpoints(stack.enter_context(reader(client)), names, PARTITIONS)
        processes = [
            stack.enter_context(worker(client, names, bundles, folder / f"{names.prefix}{number}"))
            for number in range(workers)
        ]
        share = f"insession_worker_partitions {PARTITIONS / workers}"
        while not all(share in metrics(process) for process in processes):
            time.sleep(0.2)
        started = time.perf_counter()
        replay(client, path, names.clicks, lambda done: None)
        while sum(seen.look().values()) < events:
            if time.perf_counter() > started + PATIENCE or any(p.popen.poll() is not None for p in processes):
                raise RuntimeError(f"the workers came to {seen.offsets}")
            time.sleep(0.1)
        return time.perf_counter() - started, stages(processes[0])


@contextmanager
def worker(client: topics.Client, names: Topics, bundles: Path, state: Path) -> Iterator[Process]:
    flags = ["--bootstrap", str(client["bootstrap.servers"]), "--topic-prefix", names.prefix]
    flags += ["--bundle", str(bundles), "--state", str(state), "--health-port", "0"]
    with insession("worker", *flags, ready="worker ready", log=state.with_suffix(".log")) as process:
        yield process


def metrics(process: Process) -> str:
    """What a worker tells Prometheus."""
    url = re.findall(r"http://[\d.]+:\d+", process.log.read_text())[-1]
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        return str(answer.read().decode())


def stages(process: Process) -> str:
    """Where the time of a worker's batches went, and how large they were."""
    text = metrics(process)

    def value(name: str) -> float:
        found = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[0]) if found else 0.0

    batches = value("insession_worker_batch_records_count") or 1
    records = value("insession_worker_batch_records_sum")
    sums = {
        stage: value(f'insession_worker_stage_seconds_sum{{stage="{stage}"}}')
        for stage in ("apply", "publish", "commit", "store")
    }
    spent = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in sums.items())
    return f"{spent}, added over {PARTITIONS} partitions; {records / batches:.0f} records a batch"
