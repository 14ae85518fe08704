"""What tests with real workers share: topics of their own, a worker as a process, records, and what is on the topics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from insession.online import Producing
from insession.processes import Process, insession
from models import bundle
from models.bundle import Bundle
from models.events import Click, Event, encode
from models.listings import Listing
from models.partition import Partition
from models.recording import Record, partition_of
from models.sessions import UserEmbedding
from models.states import Memory, decode_embedding
from models.topics import CHECKPOINT_KEY, Topics
from streams import topics
from streams.reader import reader
from streams.topics import Client
from tests.made import unit

PARTITIONS = 2
Place = tuple[Client, Topics]
MINUTE = 60_000


@contextmanager
def worker(place: tuple[Client, Topics], bundles: Path, folder: Path, *flags: str) -> Iterator[Process]:
    client, names = place
    common = ("--bootstrap", str(client["bootstrap.servers"]), "--topic-prefix", names.prefix)
    common += ("--bundle", str(bundles), "--state", str(folder), *flags)
    with insession("worker", *common, ready="worker ready", log=folder / "worker.log") as process:
        yield process


def click(user: str, number: int, timestamp: int) -> Click:
    return Click(
        event_id=f"e{number:05}", user_id=user, timestamp=timestamp, listing_id=f"l{number * 7 % 40}"
    )


def as_record(event: Event, value: bytes | None = None) -> Record:
    key = getattr(event, "user_id", "").encode()
    value = encode(event) if value is None else value
    return Record(partition_of(key, PARTITIONS), None, event.timestamp, key, (), value)


def records(count: int, users: int = 20) -> list[Record]:
    """Clicks of some users, three seconds apart, with a broken and a late one now and then, over some sessions."""
    now = 1_700_000_000_000
    found = []
    for number in range(count):
        now += 3_000 if number % 100 else 50 * MINUTE
        event = click(f"u{number % users}", number, now)
        found.append(as_record(event))
        if number % 40 == 7:
            found.append(as_record(event, b'{"type":"click"'))
        if number % 40 == 9 and number > 200:
            found.append(as_record(click("late", number, now - 20 * MINUTE)))
        if number % 40 == 11:
            found.append(as_record(event))
    return found


def wait_until_applied(place: tuple[Client, Topics], ends: dict[int, int]) -> None:
    """Wait until the checkpoints have come to these offsets."""
    client, names = place
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        there = {}
        with reader(client) as source:
            for number in ends:
                for messages, _ in source.read(names.user_embeddings, number):
                    for message in messages:
                        if message.key() == CHECKPOINT_KEY:
                            there[number] = msgspec.json.decode(message.value() or b"")["next_offset"]
        if all(there.get(number, 0) >= end for number, end in ends.items()):
            return
        time.sleep(0.2)
    raise AssertionError(f"the worker came to {there}, not to {ends}")


def published(place: tuple[Client, Topics]) -> tuple[object, ...]:
    """What read_committed readers find: the last record of each key, sessions and dead letters as multisets."""
    client, names = place
    embeddings: dict[bytes | None, bytes | None] = {}
    histories: dict[bytes | None, bytes | None] = {}
    sessions, dead = [], []
    with reader(client) as source:
        for number in range(PARTITIONS):
            for messages, _ in source.read(names.user_embeddings, number):
                embeddings |= {m.key(): m.value() for m in messages if m.key() != CHECKPOINT_KEY}
            for messages, _ in source.read(names.user_histories, number):
                histories |= {m.key(): m.value() for m in messages}
            for messages, _ in source.read(names.sessions, number):
                sessions += [(number, m.value()) for m in messages]
            for messages, _ in source.read(names.dead_letters, number):
                for message in messages:
                    headers = dict(message.headers() or [])
                    dead.append((number, headers["reason"], headers["offset"], message.value()))
    return embeddings, histories, sorted(sessions), sorted(dead)


def expected(sent: list[Record], offsets: list[int], bundles: Path) -> tuple[object, ...]:
    """The same of the same records, computed without a broker."""
    loaded = bundle.load(bundles)
    embeddings: dict[bytes, bytes | None] = {}
    histories: dict[bytes, bytes | None] = {}
    sessions, dead = [], []
    for number in range(PARTITIONS):
        states = Memory()
        partition = Partition(number, bundle=loaded, states=states)
        for item, offset in zip(sent, offsets, strict=True):
            if item.partition == number:
                partition.apply(offset, item.timestamp, item.key, item.value)
        changes = partition.flush()
        embeddings |= changes.embeddings
        histories |= changes.histories
        sessions += [(number, value) for _, value in changes.sessions]
        dead += [(number, d.reason.encode(), str(d.offset).encode(), d.value) for d in changes.dead]
    return embeddings, histories, sorted(sessions), sorted(dead)


def send(place: tuple[Client, Topics], sent: list[Record]) -> None:
    """Produce them, and wait until the broker has them."""
    producing = Producing(place[0], place[1].clicks)
    for item in sent:
        producing.produce(item.partition or 0, item)
    producing.last(b"")


def standing(place: tuple[Client, Topics], sent: list[Record]) -> list[int]:
    """The offsets of all records that were sent."""
    client, names = place
    with reader(client) as source:
        found = [
            iter([m.offset() or 0 for messages, _ in source.read(names.clicks, number) for m in messages])
            for number in range(PARTITIONS)
        ]
    return [next(found[item.partition or 0]) for item in sent]


def delete(client: Client, topic: str) -> None:
    """Delete a topic, and wait until it is gone."""
    admin = AdminClient(dict(client))
    admin.delete_topics([topic])[topic].result()
    deadline = time.monotonic() + 10
    while topic in topics.describe(client, (topic,)) and time.monotonic() < deadline:
        time.sleep(0.1)


def ends(sent: list[Record], offsets: list[int]) -> dict[int, int]:
    return {item.partition or 0: offset + 1 for item, offset in zip(sent, offsets, strict=True)}


def embeddings(place: tuple[Client, Topics]) -> dict[str, UserEmbedding]:
    client, names = place
    found: dict[bytes, bytes | None] = {}
    with reader(client) as source:
        for number in range(PARTITIONS):
            for messages, _ in source.read(names.user_embeddings, number):
                found |= {m.key() or b"": m.value() for m in messages if m.key() != CHECKPOINT_KEY}
    return {key.decode(): decode_embedding(value) for key, value in found.items() if value is not None}


def until(check: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "did not come to pass"
        time.sleep(0.2)


def announce(place: tuple[Client, Topics], *listings: Listing) -> None:
    client, names = place
    producer = Producer(dict(client))
    for listing in listings:
        producer.produce(names.listings, key=listing.listing_id, value=msgspec.json.encode(listing))
    producer.flush()


def placed(vectors: int = 40, dimensions: int = 8) -> Bundle:
    """A bundle whose listings are all rooms in one street."""
    from models import listings, ranker
    from models.bundle import Training, assemble

    known = [
        Listing(
            listing_id=f"l{row}",
            market="Lisbon",
            type="Room",
            price=100.0,
            latitude=38.7 + row / 10_000,
            longitude=-9.1,
        )
        for row in range(vectors)
    ]
    return assemble(
        listings=listings.collect(known),
        vectors=unit(vectors, dimensions),
        ranker=ranker.default(),
        training=Training(source="embeddings", data="placed"),
    )


NEW = Listing(listing_id="new", market="Lisbon", type="Room", price=100.0, latitude=38.7, longitude=-9.1)


def allow(client: Client, topic: str, name: str, value: str) -> None:
    """Change a setting of a topic."""
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({**client})
    [done] = admin.incremental_alter_configs([resource]).values()
    done.result()
