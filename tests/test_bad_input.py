"""Bad records among good ones, through a worker: each bad one is a dead letter once, each good one counts once."""

from __future__ import annotations

import gzip
import hashlib
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
import pytest
from confluent_kafka import KafkaError, Producer

from insession.processes import insession
from models import bundle
from models.dead_letters import BYTES as DEAD_LETTER_BYTES
from models.events import DEPTH, VALUE_BYTES, Booking, Click, Event, Result, Search, encode
from models.partition import Partition
from models.recording import Record, partition_of
from models.sessions import WINDOWS
from models.states import Memory
from models.topics import Topics
from streams import topics
from streams.broker import Broker
from streams.reader import reader
from streams.topics import Client
from tests.made import a_bundle
from tests.path import (
    PARTITIONS,
    allow,
    ends,
    expected,
    published,
    send,
    standing,
    wait_until_applied,
    worker,
)

SEED = 20_240_501
BAD, GOOD = 10_500, 4_500
MINUTE = 60_000
YEAR = 365 * 24 * 60 * MINUTE
LARGEST_RECORD = 1_000_000
"""What Kafka's clients send by default."""

Bytes = bytes | None
Made = tuple[Bytes, Bytes]
"""Key and value."""


def fields(number: int, now: int, **changes: object) -> dict[str, object]:
    """A click that would be good but for the changes."""
    named = {"event_id": f"bad{number}", "user_id": f"u{number % 50}", "listing_id": "l1"}
    return {"type": "click", **named, "timestamp": now, **changes}


def click(number: int, now: int, **changes: object) -> Made:
    event = fields(number, now, **changes)
    return str(event["user_id"]).encode(), json.dumps(event).encode()


def raw(number: int, now: int, field: str, value: bytes) -> Made:
    """A click with this text in the place of a field's value."""
    key, good = click(number, now, **{field: "@@"})
    return key, (good or b"").replace(b'"@@"', value)


def without(number: int, now: int, field: str) -> Made:
    event = fields(number, now)
    del event[field]
    return f"u{number % 50}".encode(), json.dumps(event).encode()


def search(number: int, now: int, results: int) -> Made:
    head = json.dumps(fields(number, now, type="search")).encode()[:-1]
    shown = b",".join([b'{"listing_id":"l1","position":1}'] * results)
    return f"u{number % 50}".encode(), head + b',"results":[' + shown + b"]}"


def keyed(key: Bytes, number: int, now: int) -> Made:
    return key, click(number, now)[1]


UNREADABLE: dict[str, Callable[[Random, int, int], Made]] = {
    "no JSON": lambda r, n, t: (b"u1", f"click {n} on l1".encode()),
    "JSON cut short": lambda r, n, t: (b"u1", (click(n, t)[1] or b"")[: r.randrange(1, 60)]),
    "JSON and more": lambda r, n, t: (b"u1", (click(n, t)[1] or b"") * 2),
    "another JSON": lambda r, n, t: (b"u1", r.choice([b"[]", b"null", b"7", b'"click"', b"{}", b"[{}]"])),
    "random bytes": lambda r, n, t: (r.randbytes(5), b"\x00" + r.randbytes(r.randrange(1, 300))),
    "UTF-16": lambda r, n, t: (b"u1", (click(n, t)[1] or b"").decode().encode("utf-16")),
    "a byte order mark": lambda r, n, t: (b"u1", b"\xef\xbb\xbf" + (click(n, t)[1] or b"")),
    "compressed": lambda r, n, t: (b"u1", gzip.compress(click(n, t)[1] or b"")),
    "invalid UTF-8 in an id": lambda r, n, t: raw(n, t, "listing_id", b'"l\xff1"'),
    "invalid UTF-8 in a field nobody knows": lambda r, n, t: raw(n, t, "colour", b'"\xc3("'),
    "a wrong type": lambda r, n, t: click(
        n,
        t,
        **{r.choice(["timestamp", "event_id", "listing_id"]): r.choice([[], {}, None, True, 0.5])},
    ),
    "a text for a time": lambda r, n, t: click(n, t, timestamp=str(t)),
    "a missing field": lambda r, n, t: without(
        n, t, r.choice(["type", "event_id", "user_id", "timestamp", "listing_id"])
    ),
    "an unknown type": lambda r, n, t: click(n, t, type=r.choice(["dance", "", "Click", "x" * 2_000])),
    "NaN": lambda r, n, t: raw(n, t, "timestamp", r.choice([b"NaN", b"Infinity", b"-Infinity", b"nan"])),
    "a huge number": lambda r, n, t: raw(
        n, t, "timestamp", r.choice([b"1e999", b"9" * 40, b"-" + b"9" * 40, b"9" * 5_000, b"1e300"])
    ),
    "a negative time": lambda r, n, t: click(n, t, timestamp=-t),
    "a time after the year 9999": lambda r, n, t: click(n, t, timestamp=253_402_300_800_000 + n),
    "a time in microseconds": lambda r, n, t: click(n, t, timestamp=t * 1_000),
    "an empty id": lambda r, n, t: click(n, t, **{r.choice(["event_id", "user_id", "listing_id"]): ""}),
    "a long id": lambda r, n, t: click(
        n, t, **{r.choice(["event_id", "user_id", "listing_id"]): "x" * r.choice([257, 5_000, 100_000])}
    ),
    "an id of too many bytes": lambda r, n, t: click(n, t, user_id="🛏" * 65),
    "a blank id": lambda r, n, t: click(n, t, **{r.choice(["event_id", "listing_id"]): r.choice([" ", "   ", "\u2003"])}),
    "a control character in an id": lambda r, n, t: click(
        n, t, **{r.choice(["event_id", "listing_id"]): r.choice(["a\x00", "\x07b", "a\nb", "a\x7f", "a\x85"])}
    ),
    "a control character in the JSON": lambda r, n, t: raw(n, t, "listing_id", b'"a\x01b"'),
    "a lone surrogate": lambda r, n, t: raw(
        n, t, r.choice(["listing_id", "query"]), r.choice([b'"\\ud83d"', b'"\\ude00 and more of it"'])
    ),
    "deep nesting": lambda r, n, t: raw(n, t, "path", b"[" * (DEPTH + 10) + b"]" * (DEPTH + 10)),
    "deeper nesting": lambda r, n, t: (b"u1", b'{"a":' * r.choice([1_000, 50_000])),
    "a null key": lambda r, n, t: keyed(None, n, t),
    "an empty key": lambda r, n, t: keyed(b"", n, t),
    "key and user at odds": lambda r, n, t: keyed(f"u{n % 50 + 1}".encode(), n, t),
    "a long key": lambda r, n, t: keyed(b"k" * (DEAD_LETTER_BYTES + 7), n, t) if n % 20 == 0 else keyed(b"k", n, t),
    "a null value": lambda r, n, t: (f"u{n % 50}".encode(), None),
    "an empty value": lambda r, n, t: (f"u{n % 50}".encode(), b""),
    "a reserved user": lambda r, n, t: click(n, t, user_id=r.choice(["__checkpoint", "__", "__u"])),
    "a later version": lambda r, n, t: click(n, t, version=r.choice([2, 0, -1, 10**25])),
    "too many results": lambda r, n, t: search(n, t, 1_001),
    "a price of infinity": lambda r, n, t: (
        f"u{n % 50}".encode(),
        (search(n, t, 1)[1] or b"").replace(b'"position":1', b'"position":1,"price":1e999'),
    ),
}  # fmt: skip
SELDOM: dict[str, Callable[[Random, int, int], Made]] = {
    "a megabyte of something": lambda r, n, t: (b"u1", r.randbytes(1_000_000)),
    "more than a megabyte of JSON": lambda r, n, t: click(n, t, note="x" * VALUE_BYTES),
    "a million results": lambda r, n, t: search(n, t, 1_000_000),
}
"""Two of each."""


def bad(random: Random, number: int, now: int) -> tuple[str, str, Made]:
    """Kind, reason, and the record's key and value."""
    kinds = [*UNREADABLE, "long ago", "far ahead"]
    kind = list(SELDOM)[number // 2] if number < 2 * len(SELDOM) else kinds[number % len(kinds)]
    if kind == "long ago":
        return (
            kind,
            "late",
            click(number, now, timestamp=random.choice([0, 1, now - YEAR, now - 180 * MINUTE])),
        )
    if kind == "far ahead":
        ahead = random.choice([6 * MINUTE, YEAR, 10 * YEAR])
        return kind, "impossible", click(number, now, timestamp=now + ahead)
    return kind, "unreadable", {**UNREADABLE, **SELDOM}[kind](random, number, now)


def good(random: Random, number: int, now: int) -> Made:
    """A record that looks odd, now and then, and is none the less to be counted."""
    user = random.choice([f"u{number % 50}", f"ünï-{number % 7}", f"🛏{number % 5}", f' "\\{number % 3} '])
    named = {"event_id": f"e{number}", "user_id": user, "timestamp": now - random.randrange(5 * MINUTE)}
    listing = random.choice([f"l{number % 40}", "l\u2028 ", "x" * 256, "ä" * 128])
    event: dict[str, object] = {**named, "type": "click", "listing_id": listing}
    match number % 10:
        case 0:
            event = {**named, "type": "search", "results": []}
        case 1:
            shown = [
                {"listing_id": f"l{at % 40}", "position": at + 1} for at in range(random.choice([3, 1_000]))
            ]
            event = {**named, "type": "search", "results": shown, "query": "\x00\x1b or ]]]] not"}
        case 2:
            event |= {"type": "booking", "colour": {"of": [[[float("-1e300")]]]}, "huge": 10**60}
        case 3:
            event |= {"path": [[[]]] * 60, "search_id": "s", "market": "Ö"}
        case 4 if number % 500 == 4:
            event |= {"note": "n" * (VALUE_BYTES - 2_000)}
        case 5:
            event = {**named, "type": "leave", "of": f"e{number - 50}", "seconds": 61}
    text = json.dumps(event, ensure_ascii=random.random() < 0.5, indent=random.choice([None, 1]))
    return user.encode(), text.encode()


def mixture(random: Random) -> tuple[list[Record], dict[int, tuple[str, str]]]:
    """The records in the order they are sent, and kind and reason of those that are bad, by their place."""
    now = 1_700_000_000_000
    sent: list[Record] = []
    wrong: dict[int, tuple[str, str]] = {}
    for partition in range(PARTITIONS):  # The watermark stands somewhere before anything is late.
        user = next(f"u{n}" for n in range(50) if partition_of(f"u{n}".encode(), PARTITIONS) == partition)
        key, value = click(partition, now, user_id=user)
        sent.append(Record(partition, None, now, key, (), value))
    for number, is_bad in enumerate(random.sample([True] * BAD + [False] * GOOD, BAD + GOOD)):
        now += 1_000 if number % 3_000 else 50 * MINUTE
        if is_bad:
            kind, reason, (key, value) = bad(random, len(wrong), now)
            wrong[len(sent)] = kind, reason
            partition = random.randrange(PARTITIONS)
        else:
            key, value = good(random, number, now)
            partition = partition_of(key or b"", PARTITIONS)
        sent.append(Record(partition, None, now, key, (), value))
    return sent, wrong


@pytest.mark.kafka
def test_each_bad_record_is_a_dead_letter_once_and_each_good_one_counts_once(
    kafka: Broker, tmp_path: Path
) -> None:
    bundle.write(tmp_path / "bundles", a_bundle(40))
    client: Client = {"bootstrap.servers": kafka.bootstrap, "message.max.bytes": 50_000_000}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    place = (client, names)
    topics.ensure(client, names, partitions=PARTITIONS, retention_ms=-1)
    allow(client, names.clicks, "max.message.bytes", "50000000")
    sent, wrong = mixture(Random(SEED))
    kinds = Counter(kind for kind, _ in wrong.values())
    assert len(wrong) >= 10_000
    assert len(kinds) >= 40
    with worker(place, tmp_path / "bundles", tmp_path / "state") as process:
        send(place, sent)
        offsets = standing(place, sent)
        wait_until_applied(place, ends(sent, offsets))
        assert process.popen.poll() is None
    assert process.popen.returncode == 0

    right = [at for at in range(len(sent)) if at not in wrong]
    counted = expected([sent[at] for at in right], [offsets[at] for at in right], tmp_path / "bundles")
    assert counted[3] == []
    assert published(place)[:3] == counted[:3]
    origins = {(sent[at].partition, offsets[at]): at for at in wrong}
    seen = Counter[int]()
    with reader(client) as source:
        for number in range(PARTITIONS):
            for messages, _ in source.read(names.dead_letters, number):
                for message in messages:
                    headers = {name: (value or b"").decode() for name, value in message.headers() or []}
                    at = origins[(int(headers["partition"]), int(headers["offset"]))]
                    item, value = sent[at], sent[at].value or b""
                    seen[at] += 1
                    assert headers["reason"] == wrong[at][1], wrong[at]
                    assert headers["detail"]
                    assert headers["topic"] == names.clicks
                    assert headers["timestamp"] == str(item.timestamp)
                    assert headers["length"] == str(len(value))
                    assert headers["sha256"] == hashlib.sha256(value).hexdigest()
                    assert message.value() == (item.value and item.value[:DEAD_LETTER_BYTES])
                    assert message.key() == (item.key and item.key[:DEAD_LETTER_BYTES])
    assert seen == dict.fromkeys(wrong, 1)


@pytest.mark.kafka
def test_the_broker_refuses_what_is_dated_minutes_ahead(kafka: Broker) -> None:
    client: Client = {"bootstrap.servers": kafka.bootstrap}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    topics.ensure(client, names, partitions=1)
    refused: list[str | None] = []
    producer = Producer({**client})
    for ahead in (0, 3 * MINUTE, 10 * YEAR):
        producer.produce(
            names.clicks,
            b"{}",
            timestamp=int(time.time() * 1000) + ahead,
            on_delivery=lambda error, _: refused.append(error and error.name()),
        )
        producer.flush()
    assert refused == [None, *[KafkaError(KafkaError.INVALID_TIMESTAMP).name()] * 2]


@pytest.mark.kafka
def test_clicks_are_read_in_every_compression_and_a_consumer_that_fails_ends_the_worker(
    kafka: Broker, tmp_path: Path
) -> None:
    bundle.write(tmp_path / "bundles", a_bundle(40))
    client: Client = {"bootstrap.servers": kafka.bootstrap}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    topics.ensure(client, names, partitions=1, retention_ms=-1)
    count = 0
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        producer = Producer({**client, "compression.type": codec, "linger.ms": 100})
        for _ in range(50):
            key, value = click(count, START + count)
            producer.produce(names.clicks, value, key, timestamp=START + count)
            count += 1
        producer.flush()
    # Without the library that reads them.
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "cramjam.py").write_text("raise ImportError")
    common = ("--bootstrap", kafka.bootstrap, "--topic-prefix", names.prefix)
    common += ("--bundle", str(tmp_path / "bundles"), "--state", str(tmp_path / "state"))
    with insession(
        "worker", *common, ready="worker", log=tmp_path / "log", environment={"PYTHONPATH": str(absent)}
    ) as process:
        assert process.popen.wait(30) == 1
    assert "compression codec not found" in (tmp_path / "log").read_text().splitlines()[-1]
    with worker((client, names), tmp_path / "bundles", tmp_path / "state"):
        wait_until_applied((client, names), {0: count})
    with reader(client) as source:
        assert not any(messages for messages, _ in source.read(names.dead_letters, 0))


START = 1_700_000_000_000


class Run:
    """A partition that is handed batches of 1,000, and what came of them."""

    def __init__(self) -> None:
        self.states = Memory()
        self.partition = Partition(0, bundle=a_bundle(40), states=self.states)
        self.embeddings: dict[bytes, Bytes] = {}
        self.histories: dict[bytes, Bytes] = {}
        self.sessions: list[tuple[bytes, bytes]] = []
        self.dead: list[tuple[int, str]] = []
        self.largest = 0
        self.offset = 0

    def apply(self, events: list[tuple[Event, int]]) -> float:
        """Apply events, each with its record's timestamp; the processor's seconds that took."""
        rows = [(at, getattr(event, "user_id", "").encode(), encode(event)) for event, at in events]
        started = time.process_time()
        for begin in range(0, len(rows), 1_000):
            batch = rows[begin : begin + 1_000]
            self.partition.load(key for _, key, _ in batch)
            for timestamp, key, value in batch:
                self.partition.apply(self.offset, timestamp, key, value)
                self.offset += 1
            self.take()
        return time.process_time() - started

    def take(self) -> None:
        more = True
        while more:
            changes = self.partition.flush()
            self.states.write(changes.store)
            self.embeddings |= changes.embeddings
            self.histories |= changes.histories
            self.sessions += changes.sessions
            self.dead += [(letter.offset, letter.reason) for letter in changes.dead]
            written = [
                *changes.embeddings.values(),
                *changes.histories.values(),
                *dict(changes.sessions).values(),
            ]
            self.largest = max([self.largest, *(len(value) for value in written if value is not None)])
            more = changes.more


def test_one_user_with_a_hundred_thousand_clicks_in_an_hour_costs_no_more_than_others() -> None:
    count = 100_000

    def clicks(user: Callable[[int], str]) -> list[tuple[Event, int]]:
        times = [START + at * 60 * MINUTE // count for at in range(count)]
        return [
            (Click(event_id=f"e{at}", user_id=user(at), timestamp=now, listing_id=f"l{at % 40}"), now)
            for at, now in enumerate(times)
        ]

    one, many = Run(), Run()
    mine, theirs = clicks(lambda at: "u"), clicks(lambda at: f"u{at % 10_000}")
    first, rest, last = one.apply(mine[:10_000]), one.apply(mine[10_000:-10_000]), one.apply(mine[-10_000:])
    assert last < 4 * first  # Flat, however many came before.
    assert first + rest + last < 5 * many.apply(theirs)
    assert one.largest < 16_384
    assert len(one.states.values) == 2  # The record and its timer.


def test_no_record_grows_past_what_kafka_takes() -> None:
    """The longest ids, which JSON makes twice as long, in the fullest sessions and history."""
    run = Run()

    def name(number: int) -> str:
        return f"{number:08}".ljust(256, '"')

    def events(first: int, count: int, start: int) -> list[tuple[Event, int]]:
        found: list[tuple[Event, int]] = []
        for number in range(first, first + count):
            now, named = start + number % 100, {"event_id": name(number), "user_id": name(0)}
            event: Event
            if number % 100 < 4:
                results = tuple(Result(listing_id=name(at), position=1) for at in range(25))
                event = Search(
                    **named, timestamp=now, results=results, market=name(1), search_id=name(number)
                )
            else:
                event = Booking(
                    **named, timestamp=now, listing_id=name(number), market=name(1), search_id=name(number)
                )
            found.append((event, now))
        return found

    for visit in range(8):
        run.apply(events(200 * visit, 100, START + visit * 100 * MINUTE))
        run.apply(events(200 * visit + 100, 100, START + visit * 100 * MINUTE + WINDOWS.gap + 1_000))
    assert len(run.sessions) == 14
    assert 200_000 < run.largest < LARGEST_RECORD


@pytest.mark.parametrize("ahead", [3 * MINUTE, 10 * YEAR])
@pytest.mark.parametrize("stamped_by_the_phone", [False, True])
def test_a_phone_whose_clock_is_ahead_harms_nobody_else(ahead: int, stamped_by_the_phone: bool) -> None:
    """The record's time is the service's, or the phone's as far as the broker takes it: a minute ahead."""

    def others() -> list[tuple[Event, int]]:
        found: list[tuple[Event, int]] = []
        for at in range(1_000):
            now = START + at * 20_000
            behind = 11 * MINUTE + 20_000 if at % 100 == 50 else 8 * MINUTE if at % 7 == 3 else 0
            listing, user = f"l{at % 40}", f"u{at % 9 if at % 400 < 200 else at % 3}"
            found.append(
                (Click(event_id=f"e{at:04}", user_id=user, timestamp=now - behind, listing_id=listing), now)
            )
        return found

    alone, together = Run(), Run()
    alone.apply(others())
    mixed: list[tuple[Event, int]] = []
    for at, (event, now) in enumerate(others()):
        mixed.append((event, now))
        phone = Click(event_id=f"p{at}", user_id="phone", timestamp=now + ahead, listing_id="l1")
        mixed.append((phone, now + MINUTE if stamped_by_the_phone else now))
    together.apply(mixed)
    assert together.partition.watermark - alone.partition.watermark == (
        MINUTE if stamped_by_the_phone and ahead == 3 * MINUTE else 0
    )

    def of_others(run: Run) -> tuple[object, ...]:
        visible = {
            key: msgspec.json.decode(value)["state"]
            for key, value in run.embeddings.items()
            if value is not None and key != b"phone"
        }
        lost = [reason for offset, reason in run.dead if run is alone or offset % 2 == 0]
        return visible, sorted(item for item in run.sessions if item[0] != b"phone"), lost

    assert of_others(together) == of_others(alone)
    assert [reason for _, reason in alone.dead] == ["late"] * 10
    mine = [reason for offset, reason in together.dead if offset % 2]
    assert mine == ([] if ahead == 3 * MINUTE else ["impossible"] * 1_000)
