"""A recording onto a topic."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from models import recording
from models.errors import UserError
from models.recording import home
from streams.producing import send
from streams.reader import reader
from streams.topics import Client, describe, retention

MESSAGE_BYTES = 100_000_000
"""What the producer lets pass; how long a record may be is the topic's to say."""
INTERRUPTED_SECONDS = 10.0
"""Told to stop, it waits so long for the broker to take what it was handed."""


def replay(
    client: Client,
    path: Path,
    topic: str,
    on_progress: Callable[[int], None],
    *,
    speed: float | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Produce the records of `path` to `topic`, with their own timestamps and partitions; how many the broker took.

    `speed` is a multiple of the recorded pace; None is as fast as the broker takes them. It ends early, with
    what it has handed over, when `stop` says so. An imported recording, which knows no partitions, is
    partitioned as Kafka's Java client does. Raises UserError where the topic is missing, has another number of
    partitions or does not keep everything, or the broker refuses a record.
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
    taken = 0

    def on_delivery(error: KafkaError | None, _: Message) -> None:
        nonlocal taken
        if error is None:
            taken += 1
        else:
            refused.append(error)

    producer = Producer(
        {
            **client,
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 5,
            "message.max.bytes": MESSAGE_BYTES,
            "log_level": 0,
        }
    )
    started, first = time.monotonic(), None
    for place, record in enumerate(records, 1):
        if record.partition is not None and header.partitions != found.partitions:
            raise UserError(
                f"{path} was recorded from {header.partitions} partitions and {topic} has {found.partitions}; "
                f"make topics with `insession topics --retention forever --partitions {header.partitions}`"
            )
        if speed is not None:
            first = record.timestamp if first is None else first
            due = started + (record.timestamp - first) / 1000 / speed
            while (wait := due - time.monotonic()) > 0 and not stop():
                producer.poll(min(wait, 0.1))
        if stop():
            producer.flush(INTERRUPTED_SECONDS)
            return taken
        try:
            send(
                producer,
                topic,
                key=record.key,
                value=record.value,
                headers=list(record.headers),
                partition=home(record, found.partitions),
                timestamp=record.timestamp,
                on_delivery=on_delivery,
            )
        except KafkaException as error:
            raise UserError(f"record {place:,} of {path} can't be sent: {error.args[0].str()}") from None
        if refused:
            break
        on_progress(place)
    if not refused:
        producer.flush()
    if refused:
        raise UserError(f"the broker refused a record of {path}: {refused[0].str()}")
    return taken


def holds_records(client: Client, topic: str) -> bool:
    """Whether anything is on the topic already. UserError where there is none of that name."""
    found = describe(client, (topic,)).get(topic)
    if found is None:
        raise UserError(f"there is no topic {topic}; make it with `insession topics --retention forever`")
    with reader(client) as source:
        return any(source.any(topic, number) for number in range(found.partitions))
