"""worker_vs_bare_faust: events/s of a worker, transactions included, against the same Faust that only takes them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from confluent_kafka import Producer

from insession.processes import insession
from models import bundle
from models.events import Click, encode
from models.recording import partition_of
from models.topics import CHECKPOINT_KEY, Topics
from streams import broker, topics
from streams.broker import end
from streams.reader import reader
from tests.benchmarks.result import Result, compared
from tests.made import a_bundle

EVENTS, USERS, PARTITIONS = 40_000, 4_000, 4
BARE = Path(__file__).with_name("bare_faust.py")


def run() -> list[Result]:
    home = os.environ.get("KAFKA_HOME")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        bundle.write(folder / "bundles", a_bundle(5_000, 32))
        running = stack.enter_context(broker.run(Path(home) if home else None))
        client: topics.Client = {"bootstrap.servers": running.bootstrap}
        names = Topics("bench-")
        topics.ensure(client, names, partitions=PARTITIONS, retention_ms=-1)
        _fill(client, names)
        bare = subprocess.Popen(
            [sys.executable, str(BARE), running.bootstrap, names.clicks, str(EVENTS)], stdout=subprocess.PIPE
        )
        stack.callback(end, bare)
        assert bare.stdout is not None
        against = EVENTS / float(bare.stdout.readline())
        flags = ["--bootstrap", running.bootstrap, "--topic-prefix", names.prefix]
        flags += ["--bundle", str(folder / "bundles"), "--state", str(folder / "state")]
        log = folder / "worker.log"
        with insession("worker", *flags, ready="worker ready", log=log), reader(client) as source:
            started = time.perf_counter()
            while sum(_applied(source, names)) < EVENTS:
                time.sleep(0.1)
            value = EVENTS / (time.perf_counter() - started)
    return [compared("worker_vs_bare_faust", value, "events/s", "bare Faust", against)]


def _fill(client: topics.Client, names: Topics) -> None:
    producer = Producer({**client, "linger.ms": 5, "log_level": 0})
    start = int(time.time() * 1000) - EVENTS * 10
    for number in range(EVENTS):
        user, time_ms = f"u{number * 7919 % USERS}", start + number * 10
        event = Click(
            event_id=str(number), user_id=user, timestamp=time_ms, listing_id=f"l{number * 31 % 5000}"
        )
        number_of = partition_of(user.encode(), PARTITIONS)
        while True:
            try:
                producer.produce(
                    names.clicks, key=user, value=encode(event), partition=number_of, timestamp=time_ms
                )
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


def _applied(source, names: Topics) -> list[int]:  # type: ignore[no-untyped-def]
    """How far each partition's checkpoint has come, read from where the last look ended."""
    for number in range(PARTITIONS):
        position, at = _POSITIONS.get(number, (0, 0))
        chunks = source.read(names.user_embeddings, number, position) if position else None
        for messages, end_ in chunks or source.read(names.user_embeddings, number):
            position = end_
            for message in messages:
                if message.key() == CHECKPOINT_KEY:
                    at = msgspec.json.decode(message.value() or b"")["next_offset"]
        _POSITIONS[number] = (position, at)
    return [at for _, at in _POSITIONS.values()]


_POSITIONS: dict[int, tuple[int, int]] = {}
