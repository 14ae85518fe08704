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
from tests.benchmarks.result import Result
from tests.benchmarks.worker import worker
from tests.made import a_bundle

SECONDS, WARM, PARTITIONS, USERS = 12.0, 4.0, 4, 5_000
HALF = 10_000
"""Half of what one worker does in worker_vs_bare_faust, clicks/s."""


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
        results = []
        for rate, name in ((1_000, "click_to_vector"), (HALF, "click_to_vector_half")):
            waited = measure(client, names, rate)
            note = f"at {rate:,} clicks/s, {len(waited):,} waited for"
            results += [
                Result(name=f"{name}_p{p}", value=float(np.percentile(waited, p)), unit="ms", note=note)
                for p in (50, 99)
            ]
        return results


def measure(client: topics.Client, names: Topics, rate: int) -> list[float]:
    """Milliseconds of every click whose user's record names it as the last applied."""
    produced: dict[tuple[int, int], float] = {}
    seen: dict[tuple[int, int], float] = {}
    ending = threading.Event()
    following = threading.Event()
    reading = threading.Thread(target=_read, args=(client, names, seen, following, ending))
    reading.start()
    following.wait()
    _produce(client, names, rate, produced)
    time.sleep(2)
    ending.set()
    reading.join()
    warm = min(produced.values()) + WARM
    return [(seen[place] - at) * 1_000 for place, at in produced.items() if place in seen and at >= warm]


def _produce(client: topics.Client, names: Topics, rate: int, produced: dict[tuple[int, int], float]) -> None:
    producer = Producer({**client, "linger.ms": 1, "log_level": 0})
    begun, sent = time.perf_counter(), 0

    def delivered(at: float, message: Message) -> None:
        produced[message.partition() or 0, message.offset() or 0] = at

    while (now := time.perf_counter()) < begun + SECONDS:
        while sent < (now - begun) * rate:
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
