"""recovery_cold, recovery_warm: how long a worker takes over a million users' partitions, its disk lost or kept, in seconds.

A million users means: 8 events in the open session and 20 of history each, and three versions of each on the topics,
uncompacted. INSESSION_BENCH_USERS makes it fewer.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from confluent_kafka import Producer

from insession.processes import Process, insession
from insession.progress import Progress
from models import bundle
from models.bundle import Bundle
from models.history import Done, History, Visit
from models.recording import partition_of
from models.sessions import Action, Session, State, UserEmbedding
from models.states import Checkpoint
from models.topics import CHECKPOINT_KEY, Topics
from streams import broker, topics
from streams.producing import send
from streams.topics import cluster_id
from tests.benchmarks.result import Result
from tests.made import a_bundle

USERS, VERSIONS, PARTITIONS, SHAPES = 1_000_000, 3, 4, 2_000
START = 1_700_000_000_000


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
        flags = ["--bootstrap", running.bootstrap, "--topic-prefix", names.prefix]
        flags += ["--bundle", str(folder / "bundles"), "--state", str(folder / "state")]
        results = []
        for name in ("recovery_cold", "recovery_warm"):
            started = time.perf_counter()
            with insession(
                "worker", *flags, ready="worker ready", log=folder / "worker.log", seconds=600
            ) as process:
                whole = time.perf_counter() - started
                seconds = float(re.findall(r"after ([\d.]+) s", process.line)[0])
                note = f"{users:,} users, process started {whole:.1f} s before, {memory(process):,.0f} MB at most"
            results.append(Result(name=name, value=seconds, unit="s", note=note))
        disk = sum(path.stat().st_size for path in (folder / "state").rglob("*") if path.is_file())
        results.append(Result(name="store_bytes_per_user", value=disk / users, unit="bytes"))
        return results


def memory(process: Process) -> float:
    """The most the process had in memory, MB."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


def fill(client: topics.Client, names: Topics, loaded: Bundle, users: int) -> None:
    """Put the users' states and histories on their topics, version after version, and a checkpoint."""
    shapes = list(states(loaded))
    producer = Producer(
        {
            **client,
            "linger.ms": 50,
            "compression.type": "lz4",
            "queue.buffering.max.kbytes": 1 << 20,
            "log_level": 0,
        }
    )
    ids = [f"visitor-{number:07}" for number in range(users)]
    partitions = [partition_of(name.encode(), PARTITIONS) for name in ids]
    with Progress("filling topics", users * VERSIONS, "users") as progress:
        for version in range(VERSIONS):
            for at, (name, partition) in enumerate(zip(ids, partitions, strict=True)):
                state, history = shapes[(at * 7 + version * 613) % SHAPES]
                for topic, value in ((names.user_embeddings, state), (names.user_histories, history)):
                    send(
                        producer,
                        topic,
                        key=name,
                        value=value.replace(b"NOBODY", name.encode()),
                        partition=partition,
                    )
                if at % 10_000 == 0:
                    producer.poll(0)
                    progress.update(version * users + at)
    producer.flush()
    found = topics.require(client, names)
    checkpoint = Checkpoint(
        next_offset=0,
        watermark=START,
        cluster=cluster_id(client),
        topics={name: found[name].id for name in (names.clicks, *names.outputs)},
    )
    for number in range(PARTITIONS):
        producer.produce(
            names.user_embeddings, key=CHECKPOINT_KEY, value=msgspec.json.encode(checkpoint), partition=number
        )
    producer.flush()


def states(loaded: Bundle) -> Iterator[tuple[bytes, bytes]]:
    """Records of `user-embeddings` and `user-histories` of a user named NOBODY."""
    rng = random.Random(1)
    for shape in range(SHAPES):
        events = tuple(
            Action(
                START + at * 20_000, f"{shape:08x}-{at}-{rng.getrandbits(32):08x}", "click",
                f"l{rng.randrange(5_000)}", "Lisbon", f"{rng.getrandbits(32):08x}",
            )
            for at in range(8)
        )  # fmt: skip
        session = Session(events[0].timestamp, events)
        record = UserEmbedding(
            user_id="NOBODY",
            vector=loaded.encode(session),
            bundle=loaded.name,
            as_of=session.last,
            partition=0,
            offset=shape,
            state=State(sessions=(session,), last=session.last),
        )
        done = [
            Done("click", f"l{rng.randrange(5_000)}", START - 86_400_000 + at * 30_000, "Lisbon")
            for at in range(20)
        ]
        visits = [
            Visit(part[0].timestamp, part[-1].timestamp, tuple(part)) for part in (done[:10], done[10:])
        ]
        yield (
            msgspec.json.encode(record),
            msgspec.json.encode(History(user_id="NOBODY", visits=tuple(visits))),
        )
