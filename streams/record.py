"""A topic into a recording."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from confluent_kafka import KafkaException, Message

from models.errors import UserError
from models.recorder import Recorder
from models.recording import Header, Record
from streams.reader import OutOfRange, Reader, Stopped, reader
from streams.topics import Client, Found, cluster_id, describe

FLUSH_SECONDS = 2.0
"""While it follows, what was read is on disk after so long."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Offsets that the topic no longer had when they were to be recorded."""

    partition: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a run came to."""

    records: int
    """In the recording now,"""
    before: int
    """and before this run."""
    missing: tuple[Missing, ...]


def record(
    client: Client,
    topic: str,
    out: Path,
    on_progress: Callable[[int], None],
    *,
    follow: bool = False,
    stop: Callable[[], bool] = lambda: False,
    on_missing: Callable[[Missing], None] = lambda missing: None,
) -> Recorded:
    """Record what is committed of `topic`, up to its end as it is reached; with `follow` on and on until `stop`.

    Goes on with the recording at `out` where there is one. Records of a partition stand in its order, those of
    different partitions in the order of their times as far as that allows, and while it follows as they come.
    Raises UserError where there is no such topic, or `out` holds something else; what was recorded until then
    is kept.
    """
    found = describe(client, (topic,)).get(topic)
    if found is None:
        raise UserError(f"there is no topic {topic} at {client['bootstrap.servers']}")
    missing: list[Missing] = []

    def miss(gap: Missing) -> None:
        missing.append(gap)
        on_missing(gap)

    with ExitStack() as stack:
        sources = [stack.enter_context(reader(client, stop)) for _ in range(found.partitions)]
        header = _header(client, found, sources)
        recorder = stack.enter_context(Recorder(out, header))
        try:
            streams = [
                _records(source, topic, partition, recorder, miss) for partition, source in enumerate(sources)
            ]
            for _, item in heapq.merge(*streams, key=lambda pair: pair[0]):
                recorder.write(item)
                on_progress(recorder.standing.records)
                if stop():
                    break
            if follow and not stop():
                _follow(sources[0], topic, recorder, miss, on_progress, stop)
        except Stopped:
            pass  # The broker is away, and there is nothing to wait for any more.
        except KafkaException as error:
            raise UserError(f"{topic} can't be read on: {error.args[0].str()}") from None
        return Recorded(recorder.standing.records, recorder.before, tuple(missing))


def _header(client: Client, found: Found, sources: list[Reader]) -> Header:
    return Header(
        topic=found.name,
        partitions=found.partitions,
        source="kafka",
        cluster_id=cluster_id(client),
        topic_id=found.id,
        beginnings=tuple(source.beginning(found.name, number) for number, source in enumerate(sources)),
        settings={
            name: value
            for name, value in found.settings.items()
            if name in ("cleanup.policy", "retention.ms", "message.timestamp.type")
        },
    )


def _records(
    source: Reader, topic: str, partition: int, recorder: Recorder, miss: Callable[[Missing], None]
) -> Iterator[tuple[int, Record]]:
    """A partition's records, each with the greatest timestamp so far: sorted by it, a partition keeps its order."""
    so_far = recorder.standing.latest[partition]
    position = _position(source, topic, partition, recorder.standing.positions[partition], miss)
    while True:
        try:
            for messages, _ in source.read(topic, partition, position):
                for message in messages:
                    item = _record(message)
                    so_far = max(so_far, item.timestamp)
                    position = (item.offset or 0) + 1
                    yield so_far, item
            return
        except OutOfRange:
            position = _position(source, topic, partition, position, miss)


def _follow(
    source: Reader,
    topic: str,
    recorder: Recorder,
    miss: Callable[[Missing], None],
    on_progress: Callable[[int], None],
    stop: Callable[[], bool],
) -> None:
    flushed = time.monotonic()
    while not stop():
        try:
            for messages in source.follow(topic, recorder.standing.positions):
                for message in messages:
                    recorder.write(_record(message))
                on_progress(recorder.standing.records)
                if time.monotonic() - flushed >= FLUSH_SECONDS:
                    recorder.flush()
                    flushed = time.monotonic()
                if stop():
                    return
        except OutOfRange:
            positions = recorder.standing.positions
            for partition, position in enumerate(positions):
                positions[partition] = _position(source, topic, partition, position, miss)


def _position(
    source: Reader, topic: str, partition: int, position: int, miss: Callable[[Missing], None]
) -> int:
    """Where to read on: at `position`, or where the topic begins if retention has deleted that."""
    low = source.beginning(topic, partition)
    if position < low:
        miss(Missing(partition, position, low - 1))
        return low
    if not source.has(topic, partition, position):
        raise UserError(
            f"partition {partition} of {topic} ends before offset {position}, up to which it was recorded: "
            "the broker has lost records, or this is another topic"
        )
    return position


def _record(message: Message) -> Record:
    _, timestamp = message.timestamp()
    headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
    return Record(
        message.partition(), message.offset(), timestamp, message.key(), tuple(headers), message.value()
    )
