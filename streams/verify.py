"""What the worker has put on its topics, beside what the same recording gives without a broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import cast

from confluent_kafka import Message

from models import expected, offline, recording
from models.bundle import Bundle
from models.errors import UserError
from models.expected import DEAD, EMBEDDINGS, HISTORIES, SESSIONS, Comparison, Place
from models.listings import decode_record
from models.recording import Header, Record
from models.states import decode_checkpoint
from models.topics import CHECKPOINT_KEY, Topics
from streams.reader import Reader, reader
from streams.topics import Client, cluster_id, require


def verify(
    client: Client,
    topics: Topics,
    path: Path,
    bundle: Bundle,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """Run the recording at `path` offline, with the offsets its records have on `clicks`, and compare the outputs.

    Waits for nothing. Raises UserError where the two can't be compared: `clicks` holds other records than the
    recording, or the worker has not come to its end.
    """
    found = require(client, topics)
    clicks = found[topics.clicks]
    header, records = recording.read(path)
    with ExitStack() as stack:
        source = stack.enter_context(reader(client))
        if (header.cluster_id, header.topic_id) == (cluster_id(client), clicks.id):
            standing = offline.placed(records, clicks.partitions)
        else:
            readers = [stack.enter_context(reader(client)) for _ in range(clicks.partitions)]
            standing = _standing(readers, topics.clicks, path, header, records)
        for number in range(found[topics.listings].partitions):
            for messages, _ in source.read(topics.listings, number):
                for message in messages:
                    with suppress(ValueError):  # as the worker does
                        bundle.announce(*decode_record(message.key(), message.value()))
        result = offline.run(standing, bundle, keep=True, on_progress=on_progress)
        for number in range(clicks.partitions):
            _nothing_more(source, topics.clicks, number, result.next_offsets.get(number), path)
        return expected.compare(
            expected.result(result.outputs, topics.clicks),
            _published(source, topics, clicks.partitions, result.next_offsets),
        )


def _standing(
    readers: list[Reader], topic: str, path: Path, header: Header, records: Iterator[Record]
) -> Iterator[Record]:
    """The recording's records with the offsets they have on the topic, which is read beside them."""
    partitions = len(readers)
    messages = [_messages(source, topic, number) for number, source in enumerate(readers)]
    for record in records:
        if record.partition is not None and header.partitions != partitions:
            raise UserError(
                f"{path} was recorded from {header.partitions} partitions and {topic} has {partitions}: "
                "it was not replayed to there"
            )
        record.partition = number = recording.home(record, partitions)
        message = next(messages[number], None)
        if message is None:
            raise UserError(
                f"{topic} does not hold all of {path}: partition {number} ends before the record of "
                f"key {_key(record.key)} at {record.timestamp}; replay the recording first, to fresh topics"
            )
        if (message.key(), message.value(), message.timestamp()[1]) != (
            record.key,
            record.value,
            record.timestamp,
        ):
            raise UserError(
                f"{topic} does not hold {path}: at offset {message.offset()} of partition {number} stands a "
                f"record of key {_key(message.key())} at {message.timestamp()[1]}, and the recording has one "
                f"of key {_key(record.key)} at {record.timestamp}; replay it to fresh topics"
            )
        record.offset = message.offset()
        yield record


def _key(key: bytes | None) -> str:
    return "null" if key is None else key.decode(errors="backslashreplace")


def _messages(source: Reader, topic: str, partition: int) -> Iterator[Message]:
    for messages, _ in source.read(topic, partition):
        yield from messages


def _nothing_more(source: Reader, topic: str, number: int, next_offset: int | None, path: Path) -> None:
    """Refuse to compare where clicks go on behind the recording: the worker has applied those too."""
    position = source.beginning(topic, number) if next_offset is None else next_offset
    more = sum(len(messages) for messages, _ in source.read(topic, number, position))
    if more:
        raise UserError(
            f"{topic} goes on behind the end of {path}: partition {number} has {more:,} more records; record "
            f"them too, with `insession record --out {path}` if that is where it is from, and verify again"
        )


def _published(
    source: Reader, topics: Topics, partitions: int, ends: dict[int, int]
) -> Iterator[tuple[Place, bytes]]:
    """The lines of what is on the output topics. UserError where the worker has not come to these ends of its input."""
    for number in range(partitions):
        values = _latest(source, topics.user_embeddings, number)
        checkpoint = values.pop(CHECKPOINT_KEY, None)
        applied = decode_checkpoint(checkpoint).next_offset if checkpoint else 0
        if applied < ends.get(number, 0):
            raise UserError(
                f"the worker has not come to the end of the recording: of partition {number} it has applied what "
                f"is before offset {applied:,}, of {ends[number]:,}; let it work, and verify again"
            )
        for key, value in values.items():
            yield expected.line(EMBEDDINGS, number, key, value)
    for number in range(partitions):
        for key, value in _latest(source, topics.user_histories, number).items():
            yield expected.line(HISTORIES, number, key, value)
        for name, topic in ((SESSIONS, topics.sessions), (DEAD, topics.dead_letters)):
            for message in _messages(source, topic, number):
                headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
                facts = headers if name == DEAD else []
                yield expected.line(name, number, message.key(), message.value(), facts)


def _latest(source: Reader, topic: str, number: int) -> dict[bytes | None, bytes]:
    """The last value of each key that is not a tombstone."""
    latest: dict[bytes | None, bytes] = {}
    for message in _messages(source, topic, number):
        value = message.value()
        if value is None:
            latest.pop(message.key(), None)
        else:
            latest[message.key()] = value
    return latest
