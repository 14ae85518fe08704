"""click_to_vector: from producing a click to a committed reader that has the vector with it, in ms, at 1,000 clicks/s and at half of the most."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from models import bundle
from models.events import Click, encode
from models.recording import partition_of
from models.topics import CHECKPOINT_KEY, Topics
from streams import broker, topics
from streams.reader import reader
from tests.benchmarks.result import Result
from tests.benchmarks.worker import worker
from tests.checkpoints import Checkpoints
from tests.made import a_bundle

SECONDS, WARM, PARTITIONS, USERS = 12.0, 4.0, 4, 5_000
BURST, BURST_SECONDS, PATIENCE = 20_000, 3.0, 60.0
"""More clicks a second than one worker takes, for so long: not so many that every session is full."""


class _Last(msgspec.Struct):
    offset: int


def run() -> list[Result]:
    home = os.environ.get("KAFKA_HOME")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        bundle.write(folder / "bundles", a_bundle(5_000, 32))
        running = stack.enter_context(broker.run(Path(home) if home else None))
        client: topics.Client = {"bootstrap.servers": running.bootstrap}
        names = Topics("bench-")
        topics.ensure(client, names, partitions=PARTITIONS, retention_ms=-1)
        stack.enter_context(worker(client, names, folder / "bundles", folder / "state"))
        results = percentiles("click_to_vector", *measure(client, names, 1_000))
        most = the_most(client, names)
        results += percentiles("click_to_vector_half", *measure(client, names, int(most / 2)), of=most)
        return results


def percentiles(name: str, waited: list[float], rate: float, of: float | None = None) -> list[Result]:
    note = f"at {rate:,.0f} clicks/s{f' of {of:,.0f} at most' if of else ''}, {len(waited):,} waited for"
    return [
        Result(name=f"{name}_p{p}", value=float(np.percentile(waited, p)), unit="ms", note=note)
        for p in (50, 99)
    ]


def the_most(client: topics.Client, names: Topics) -> float:
    """How many clicks/s come in and are applied, producer, broker and worker on this machine, when as many are sent as can be."""
    begun = time.perf_counter()
    produced: dict[tuple[int, int], float] = {}
    produce(client, names, BURST, BURST_SECONDS, produced)
    wait(client, names, produced)
    return len(produced) / (time.perf_counter() - begun)


def wait(client: topics.Client, names: Topics, produced: dict[tuple[int, int], float]) -> None:
    """Wait until all that was produced is applied."""
    until = time.perf_counter() + PATIENCE
    ends: dict[int, int] = {}
    for partition, offset in produced:
        ends[partition] = max(offset + 1, ends.get(partition, 0))
    with reader(client) as source:
        seen = Checkpoints(source, names, PARTITIONS)
        while any(seen.look().get(partition, 0) < end for partition, end in ends.items()):
            if time.perf_counter() > until:
                raise RuntimeError(f"the worker came to {seen.offsets}, not to {ends}")
            time.sleep(0.1)


def measure(client: topics.Client, names: Topics, rate: int) -> tuple[list[float], float]:
    """Milliseconds of every click whose user's record names it as the last applied, and the clicks/s that there were."""
    produced: dict[tuple[int, int], float] = {}
    seen: dict[tuple[int, int], float] = {}
    ending = threading.Event()
    following = threading.Event()
    reading = threading.Thread(target=_read, args=(client, names, seen, following, ending))
    reading.start()
    following.wait()
    produce(client, names, rate, SECONDS, produced)
    wait(client, names, produced)
    time.sleep(0.5)
    ending.set()
    reading.join()
    warm = min(produced.values()) + WARM
    waited = [(seen[place] - at) * 1_000 for place, at in produced.items() if place in seen and at >= warm]
    return waited, len(produced) / SECONDS


def produce(
    client: topics.Client, names: Topics, rate: int, seconds: float, produced: dict[tuple[int, int], float]
) -> None:
    """Produce clicks at a rate, or as many as can be, and note when each was, by partition and offset."""
    producer = Producer({**client, "linger.ms": 1, "log_level": 0})
    begun, sent = time.perf_counter(), 0

    def delivered(at: float, message: Message) -> None:
        produced[message.partition() or 0, message.offset() or 0] = at

    while (now := time.perf_counter()) < begun + seconds:
        while sent < (now - begun) * rate and len(producer) < 20_000 and time.perf_counter() < now + 0.05:
            user, stamp = f"u{sent * 7919 % USERS}", int(time.time() * 1000)
            event = Click(
                event_id=f"{begun}-{sent}", user_id=user, timestamp=stamp, listing_id=f"l{sent % 5_000}"
            )
            at = time.perf_counter()
            producer.produce(
                names.clicks,
                key=user,
                value=encode(event),
                partition=partition_of(user.encode(), PARTITIONS),
                timestamp=stamp,
                on_delivery=lambda error, message, at=at: delivered(at, message),  # type: ignore[misc]
            )
            sent += 1
        producer.poll(0.001)
    producer.flush(10)


def _read(
    client: topics.Client,
    names: Topics,
    seen: dict[tuple[int, int], float],
    following: threading.Event,
    ending: threading.Event,
) -> None:
    consumer = Consumer(
        {
            **client,
            "group.id": "bench",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
    )
    places = [TopicPartition(names.user_embeddings, number) for number in range(PARTITIONS)]
    ends = [consumer.get_watermark_offsets(place, timeout=10)[1] for place in places]
    consumer.assign(
        [TopicPartition(place.topic, place.partition, end) for place, end in zip(places, ends, strict=True)]
    )
    decoder = msgspec.json.Decoder(_Last)
    consumer.poll(1)
    following.set()
    while not ending.is_set():
        message = consumer.poll(0.1)
        if message is None or message.error() is not None or message.key() == CHECKPOINT_KEY:
            continue
        value = message.value()
        if value is not None:
            seen[message.partition() or 0, decoder.decode(value).offset] = time.perf_counter()
    consumer.close()
