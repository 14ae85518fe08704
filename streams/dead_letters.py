"""What was not applied: the dead letters, found by where they stood on `clicks`, and put back there when repaired."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import cast

import msgspec
from confluent_kafka import OFFSET_END, KafkaError, Message, Producer

from models import events, sessions
from models.errors import UserError
from models.events import EventError, Tick
from models.recording import partition_of
from models.states import decode_checkpoint
from models.topics import CHECKPOINT_KEY, Topics
from streams.producing import send
from streams.reader import OutOfRange, Reader, reader
from streams.topics import Client, describe

PUT_BACK = "put-back-of"
"""The header of a record on `clicks` that says which one it repairs, as PARTITION:OFFSET."""

CLOCKS_MS = 10 * 60_000
"""How far the clocks of those who write dead letters and put them back may be apart."""


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter; `partition`, `offset` and `timestamp` (ms) are those of its record on `clicks`."""

    partition: int
    offset: int
    timestamp: int
    reason: str
    detail: str
    length: int
    """Bytes of the whole value, of which `value` is the beginning,"""
    sha256: str
    """and its hash."""
    key: bytes | None
    value: bytes | None
    written: int
    """When it became a dead letter, ms."""

    @property
    def origin(self) -> str:
        """PARTITION:OFFSET on `clicks`, which names it."""
        return f"{self.partition}:{self.offset}"

    @property
    def cut(self) -> bool:
        return self.length > len(self.value or b"")


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a letter that was to be put back."""

    origin: str
    stands: str | None = None
    """PARTITION:OFFSET on `clicks`, where it was put back;"""
    left_out: str | None = None
    """or why it was not."""


def letters(client: Client, topics: Topics, partition: int | None = None) -> Iterator[Letter]:
    """The dead letters, or those of one partition, partition by partition, each oldest first. UserError where there is no such topic."""
    numbers = range(_partitions(client, topics.dead_letters)) if partition is None else [partition]
    with reader(client) as source:
        for number in numbers:
            for messages, _ in source.read(topics.dead_letters, number):
                for message in messages:
                    letter = _letter(message)
                    if letter is not None:
                        yield letter


def find(client: Client, topics: Topics, partition: int, offset: int) -> Letter:
    """The dead letter of a record of `clicks`: the newest, where there are several. UserError where there is none."""
    found = None
    if partition < _partitions(client, topics.dead_letters):
        for letter in letters(client, topics, partition):
            if letter.offset == offset:
                found = letter
    if found is None:
        raise UserError(
            f"there is no dead letter of {partition}:{offset}; `insession dead-letters list` names those there are"
        )
    return found


def whole(client: Client, topics: Topics, letter: Letter) -> bytes | None:
    """A letter's whole value, from `clicks` where the letter has only its beginning. UserError where it is gone."""
    with reader(client) as source:
        return _whole(source, topics, letter)


def put_back(
    client: Client,
    topics: Topics,
    chosen: Iterable[Letter],
    repair: Callable[[bytes | None], bytes | None],
    on_progress: Callable[[int], None] = lambda done: None,
    *,
    dry_run: bool = False,
) -> list[Outcome]:
    """Put letters back on `clicks`, each with the value that `repair` makes of its whole value.

    `repair` raises UserError where it can't. Left out is what would be a dead letter again, was put back before, or
    has lost its end. A repaired record has its user's key, the present time, and the header PUT_BACK; it stands in
    the partition it stood in, or, where its key is another now, where Kafka's Java client puts that. With `dry_run`
    nothing is written. UserError where the broker refuses a record.
    """
    latest = {letter.origin: letter for letter in chosen}
    outcomes: dict[str, Outcome] = {}
    partitions = _partitions(client, topics.clicks)
    watermarks: dict[int, int] = {}
    producer = Producer({**client, "enable.idempotence": True, "compression.type": "lz4", "log_level": 0})
    with reader(client) as source:
        before = _put_back_before(source, topics, partitions, latest.values())
        for origin, letter in latest.items():
            try:
                if origin in before:
                    raise UserError(f"it was put back before, and is {before[origin]}")
                value = repair(_whole(source, topics, letter))
                event = events.parse(value)
                key = None if isinstance(event, Tick) else event.user_id.encode()
                moved = key is not None and key != letter.key
                number = partition_of(key, partitions) if key is not None and moved else letter.partition
                if number not in watermarks:
                    watermarks[number] = _watermark(source, topics, number)
                sessions.check(event, int(time.time() * 1000), watermarks[number])
            except EventError as error:
                why = f"it would be {error.reason} again: {error}"
                outcomes[origin] = Outcome(origin=origin, left_out=why)
            except UserError as error:
                outcomes[origin] = Outcome(origin=origin, left_out=str(error))
            else:
                outcomes[origin] = Outcome(origin=origin)
                if not dry_run:
                    _produce(producer, topics.clicks, number, key, value, origin, outcomes)
            on_progress(len(outcomes))
    producer.flush()
    return list(outcomes.values())


def _produce(
    producer: Producer,
    topic: str,
    number: int,
    key: bytes | None,
    value: bytes | None,
    origin: str,
    outcomes: dict[str, Outcome],
) -> None:
    def on_delivery(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            raise UserError(f"the broker refused {origin}: {error.str()}")
        outcomes[origin] = Outcome(origin=origin, stands=f"{message.partition()}:{message.offset()}")

    send(
        producer,
        topic,
        key=key,
        value=value,
        headers=[(PUT_BACK, origin.encode())],
        partition=number,
        on_delivery=on_delivery,
    )


def _put_back_before(
    source: Reader, topics: Topics, partitions: int, chosen: Iterable[Letter]
) -> dict[str, str]:
    """Which letters were put back already, and where they stand: by the headers of what came since the first of them."""
    since = min((letter.written for letter in chosen), default=0) - CLOCKS_MS
    stands = {}
    for number in range(partitions):
        position = source.since(topics.clicks, number, max(0, since))
        if position == OFFSET_END:
            continue
        for messages, _ in source.read(topics.clicks, number, position):
            for message in messages:
                origin = _headers(message).get(PUT_BACK)
                if origin is not None:
                    stands[origin] = f"{number}:{message.offset()}"
    return stands


def _watermark(source: Reader, topics: Topics, partition: int) -> int:
    """How far event time has come, by the newest checkpoint: it is the last record of each transaction, so near the end."""
    begin, end = (
        source.beginning(topics.user_embeddings, partition),
        source.end(topics.user_embeddings, partition),
    )
    span = 1_000
    while True:
        position = max(begin, end - span)
        newest = None
        for messages, _ in source.read(topics.user_embeddings, partition, position):
            for message in messages:
                if message.key() == CHECKPOINT_KEY and message.value() is not None:
                    newest = message.value()
        if newest is not None:
            return decode_checkpoint(newest).watermark
        if position == begin:
            return 0
        span *= 100


def _whole(source: Reader, topics: Topics, letter: Letter) -> bytes | None:
    if not letter.cut:
        return letter.value
    try:
        messages, _ = next(source.read(topics.clicks, letter.partition, letter.offset))
    except OutOfRange:
        messages = []
    for message in messages[:1]:
        value = message.value() or b""
        if message.offset() == letter.offset and hashlib.sha256(value).hexdigest() == letter.sha256:
            return value
    raise UserError(
        f"the dead letter has the first {len(letter.value or b''):,} of {letter.length:,} bytes, and the whole is "
        f"no longer on {topics.clicks}"
    )


def _letter(message: Message) -> Letter | None:
    """A record as a letter; None where it is none of ours."""
    try:
        return msgspec.convert(
            {
                **_headers(message),
                "key": message.key(),
                "value": message.value(),
                "written": message.timestamp()[1],
            },
            type=Letter,
            strict=False,
        )
    except msgspec.ValidationError:
        return None


def _headers(message: Message) -> dict[str, str]:
    headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
    return {name: (value or b"").decode(errors="replace") for name, value in headers}


def _partitions(client: Client, topic: str) -> int:
    found = describe(client, (topic,)).get(topic)
    if found is None:
        raise UserError(f"there is no topic {topic}; make it with `insession topics`")
    return found.partitions
