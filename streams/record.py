"""A topic into a recording."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import cast

from models.errors import UserError
from models.recording import Header, Record, Writer
from streams.reader import Reader, reader
from streams.topics import Client, cluster_id, describe


def record(client: Client, topic: str, out: Path, on_progress: Callable[[int], None]) -> int:
    """Record what is committed of `topic`, up to its end as it is reached; the number of records.

    Records of a partition stand in its order, those of different partitions in the order of their times as far
    as that allows. Raises UserError where there is no such topic.
    """
    found = describe(client, (topic,)).get(topic)
    if found is None:
        raise UserError(f"there is no topic {topic} at {client['bootstrap.servers']}")
    header = Header(
        topic=topic,
        partitions=found.partitions,
        source="kafka",
        cluster_id=cluster_id(client),
        topic_id=found.id,
        settings={
            name: value
            for name, value in found.settings.items()
            if name in ("cleanup.policy", "retention.ms", "message.timestamp.type")
        },
    )
    with ExitStack() as stack, Writer(out, header) as writer:
        streams = [
            _records(stack.enter_context(reader(client)), topic, partition)
            for partition in range(found.partitions)
        ]
        for _, item in heapq.merge(*streams, key=lambda pair: pair[0]):
            writer.write(item)
            on_progress(writer.records)
        return writer.records


def _records(source: Reader, topic: str, partition: int) -> Iterator[tuple[int, Record]]:
    """A partition's records, each with the greatest timestamp so far: sorted by it, a partition keeps its order."""
    so_far = 0
    for messages, _ in source.read(topic, partition):
        for message in messages:
            _, timestamp = message.timestamp()
            so_far = max(so_far, timestamp)
            headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
            yield (
                so_far,
                Record(
                    partition,
                    message.offset(),
                    timestamp,
                    message.key(),
                    tuple(headers),
                    message.value(),
                ),
            )
