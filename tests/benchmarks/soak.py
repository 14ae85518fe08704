"""soak: minutes of ranking under load while a thousand users a second change, all users in the store; memory and errors.

Runs only when asked by name (`make bench ONLY=soak`), as it takes INSESSION_SOAK_MINUTES, 10 unless told. The updates
are put on the topics as a worker does: in transactions, with the checkpoint as the last record of each.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from confluent_kafka import Producer

from insession.progress import Progress
from models.recording import partition_of
from models.states import Checkpoint
from models.topics import CHECKPOINT_KEY, Topics
from streams import topics
from streams.topics import Client, cluster_id
from tests.benchmarks import users
from tests.benchmarks.catalogue import catalogue, lists
from tests.benchmarks.result import Result
from tests.benchmarks.sidecar import PARTITIONS, filled, resident
from tests.benchmarks.wrk import Load, at_rate, found, on_core

MINUTES = float(os.environ.get("INSESSION_SOAK_MINUTES", 10))
UPDATES, RATE, CONNECTIONS = 1_000, 500, 8
PART_SECONDS = 20
TRANSACTION_SECONDS = 0.02


def run() -> list[Result]:
    if not found():
        return []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        now = int(time.time() * 1000)
        made = catalogue(folder)
        stack.enter_context(on_core(1))
        process, url, client, names = stack.enter_context(filled(folder, made, now))
        asked = lists(made, folder / "200.txt", candidates=200, users=users.USERS, timestamp=now)
        updating = Updating(client, names, users.patterns(made, now), now)
        updating.start()
        loads: list[Load] = []
        memory: list[float] = []
        begun = time.monotonic()
        with Progress("soak", round(MINUTES * 60), "s") as progress:
            while (passed := time.monotonic() - begun) < MINUTES * 60:
                seconds = min(PART_SECONDS, max(2, MINUTES * 60 - passed))
                loads.append(at_rate(url, asked, RATE, connections=CONNECTIONS, seconds=seconds))
                memory.append(resident(process))
                progress.update(round(time.monotonic() - begun), f"{memory[-1]:,.0f} MB")
        written = updating.stop() / (time.monotonic() - begun)
    first = memory[min(len(memory) - 1, 60 // PART_SECONDS - 1)]
    requests, errors = sum(each.requests for each in loads), sum(each.errors for each in loads)
    note = (
        f"{first:,.0f} MB after a minute, {users.USERS:,} users; {requests:,} requests, {errors} errors, worst p99"
        f" of {PART_SECONDS} s {max(each.p99 for each in loads):.1f} ms; {written:,.0f} updates/s for {MINUTES:g} minutes"
    )
    return [
        Result(name="soak", value=memory[-1] / first, unit="x memory", note=note),
        Result(name="soak_errors", value=errors, unit="requests"),
    ]


class Updating(threading.Thread):
    """Puts new states on the topics, UPDATES a second, until it is stopped."""

    def __init__(self, client: Client, names: Topics, patterns: list[users.Records], now: int) -> None:
        super().__init__(name="updating")
        self._client, self._names, self._patterns, self._now = client, names, patterns, now
        self._ending = threading.Event()
        self._written = 0

    def stop(self) -> int:
        """End; how many states were written."""
        self._ending.set()
        self.join()
        return self._written

    def run(self) -> None:
        found = topics.require(self._client, self._names)
        ids = {name: found[name].id for name in (self._names.clicks, *self._names.outputs)}
        cluster = cluster_id(self._client)
        producer = Producer({**self._client, "transactional.id": "soak", "linger.ms": 1, "log_level": 0})
        producer.init_transactions(30)
        begun = time.monotonic()
        for turn in itertools.count():
            if self._ending.wait(TRANSACTION_SECONDS):
                return
            due = int((time.monotonic() - begun) * UPDATES)
            producer.begin_transaction()
            for number in range(self._written, due):
                self._put(producer, number * 7919 % users.USERS, turn)
            checkpoint = Checkpoint(next_offset=due, watermark=self._now, cluster=cluster, topics=ids)
            for partition in range(PARTITIONS):
                producer.produce(
                    self._names.user_embeddings,
                    key=CHECKPOINT_KEY,
                    value=msgspec.json.encode(checkpoint),
                    partition=partition,
                )
            producer.commit_transaction(30)
            self._written = due

    def _put(self, producer: Producer, number: int, turn: int) -> None:
        key = users.user_id(number).encode()
        embedding, history = users.records(self._patterns, number, turn)
        partition = partition_of(key, PARTITIONS)
        producer.produce(self._names.user_embeddings, key=key, value=embedding, partition=partition)
        if number % 10 == 0:  # a history changes only when a session closes
            producer.produce(self._names.user_histories, key=key, value=history, partition=partition)
