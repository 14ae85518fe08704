"""A recording onto a topic."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import KafkaError, Message, Producer

from models import recording
from models.errors import UserError
from models.recording import partition_of
from streams.topics import Client, describe, retention


def replay(
    client: Client,
    path: Path,
    topic: str,
    on_progress: Callable[[int], None],
    *,
    speed: float | None = None,
) -> int:
    """Produce the records of `path` to `topic`, with their own timestamps and partitions; how many there were.

    `speed` is a multiple of the recorded pace; None is as fast as the broker takes them. An imported recording,
    which knows no partitions, is partitioned as Kafka's Java client does. Raises UserError where the topic is
    missing, has another number of partitions or does not keep everything, or the broker refuses a record.
    """
    found = describe(client, (topic,)).get(topic)
    if found is None:
        raise UserError(f"there is no topic {topic}; make it with `insession topics --retention forever`")
    keeps = retention(found)
    if keeps is not None and keeps >= 0:
        raise UserError(
            f"{topic} keeps records for {keeps / 86_400_000:g} days by their own timestamps, so replayed ones "
            "would soon be gone; replay into topics made with `insession topics --retention forever`"
        )
    header, records = recording.read(path)
    refused: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            refused.append(error)

    producer = Producer(
        {
            **client,
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 5,
            "log_level": 0,
        }
    )
    started, first, done = time.monotonic(), None, 0
    for record in records:
        partition = record.partition
        if partition is None:
            partition = partition_of(record.key or b"", found.partitions)
        elif header.partitions != found.partitions:
            raise UserError(
                f"{path} was recorded from {header.partitions} partitions and {topic} has {found.partitions}"
            )
        if speed is not None:
            first = record.timestamp if first is None else first
            wait = (record.timestamp - first) / 1000 / speed - (time.monotonic() - started)
            while wait > 0:
                producer.poll(min(wait, 0.1))
                wait = (record.timestamp - first) / 1000 / speed - (time.monotonic() - started)
        while True:
            try:
                producer.produce(
                    topic,
                    key=record.key,
                    value=record.value,
                    headers=list(record.headers),
                    partition=partition,
                    timestamp=record.timestamp,
                    on_delivery=on_delivery,
                )
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
        if refused:
            raise UserError(f"the broker refused a record of {path}: {refused[0].str()}")
        done += 1
        on_progress(done)
    producer.flush()
    if refused:
        raise UserError(f"the broker refused a record of {path}: {refused[0].str()}")
    return done
