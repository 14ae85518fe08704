"""`insession forget`: after it, and after compaction, nothing of a user is left but in logs that retention erases."""

from __future__ import annotations

import http.client
import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, TopicPartition

from insession.main import group
from insession.processes import insession
from models import bundle
from models.errors import UserError
from models.events import Forget, decode
from models.recording import Record, partition_of
from models.store import Store
from models.topics import Topics
from streams import broker, forget, topics
from streams.broker import Broker
from streams.reader import reader
from streams.topics import Client
from tests.conftest import kafka_home
from tests.made import a_bundle
from tests.path import allow, as_record, click, send, worker

MINUTE = 60_000
USER = f"ada-{secrets.token_hex(8)}"


@pytest.fixture
def cleaning() -> Iterator[Broker]:
    """Apache Kafka that compacts within moments."""
    with broker.kafka(kafka_home(), properties="log.cleaner.backoff.ms=100\n") as running:
        yield running


def beside(user: str, partitions: int) -> str:
    """Another user of the same partition."""
    number = partition_of(user.encode(), partitions)
    return next(f"ben{at}" for at in range(100) if partition_of(f"ben{at}".encode(), partitions) == number)


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.1)


def keys(client: Client, topic: str, partitions: int, isolation: str) -> list[bytes | None]:
    """The keys of all records that a topic has, tombstones too."""
    consumer = Consumer(
        {
            **client,
            "group.id": "test",
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    found, at_end = [], 0
    while at_end < partitions:
        message = consumer.poll(10)
        assert message is not None
        if message.error() is not None:
            at_end += 1
        else:
            assert USER.encode() not in (message.value() or b"") or message.key() == USER.encode()
            found.append(message.key())
    consumer.close()
    return found


def status(url: str, user: str) -> int:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request("GET", f"/v1/users/{user}")
    answer = connection.getresponse().status
    connection.close()
    return answer


@pytest.mark.kafka
def test_nothing_of_a_forgotten_user_is_left_after_compaction(cleaning: Broker, tmp_path: Path) -> None:
    client: Client = {"bootstrap.servers": cleaning.bootstrap}
    names = Topics("forget-")
    place, partitions = (client, names), 2
    topics.ensure(client, names, partitions=partitions, retention_ms=-1)
    compacted = (names.user_embeddings, names.user_histories)
    for topic in compacted:
        for name, value in {
            "segment.ms": "200",
            "min.cleanable.dirty.ratio": "0.0001",
            "min.compaction.lag.ms": "0",
        }.items():
            allow(client, topic, name, value)
    bundle.write(tmp_path / "bundles", a_bundle(40))
    start = int(time.time() * 1000) - 3 * 24 * 60 * MINUTE
    other = beside(USER, partitions)

    def seen(user: str, number: int, minute: int) -> Record:
        return as_record(click(user, number, start + minute * MINUTE))

    store = tmp_path / "state" / "worker" / f"partition-{partition_of(USER.encode(), partitions)}"
    common = ("--bootstrap", cleaning.bootstrap, "--topic-prefix", names.prefix)
    common += ("--bundle", str(tmp_path / "bundles"), "--state", str(tmp_path / "sidecar"))
    with (
        worker(place, tmp_path / "bundles", tmp_path / "state"),
        insession(
            "serve", *common, "--port", "0", ready="serving on ", log=tmp_path / "serve.log"
        ) as sidecar,
    ):
        url = sidecar.line.removeprefix("serving on ")
        send(place, [seen(USER, 1, 0), seen(other, 2, 1), seen(USER, 3, 60), seen(other, 4, 61)])
        until(lambda: (status(url, USER), status(url, other)) == (200, 200))
        assert all(USER.encode() in keys(client, topic, partitions, "read_committed") for topic in compacted)
        # The sidecar, which has looked at the topics already, must not think that it missed tombstones.
        for topic in compacted:
            allow(client, topic, "delete.retention.ms", "0")

        [done] = forget.forget(client, names, [USER], now=start + 80 * MINUTE)
        assert done.partition == partition_of(USER.encode(), partitions)
        # What the user did before, and comes only now, does not bring them back.
        send(place, [seen(USER, 5, 75), seen(other, 6, 85)])
        # The mark goes once such events would be too late.
        send(place, [seen(other, 7, 91)])
        until(lambda: status(url, USER) == 404)
        assert status(url, other) == 200

        # Kafka compacts what is not in a partition's newest segment, and takes two turns to drop a tombstone.
        number = 8

        def gone() -> bool:
            nonlocal number
            # Sessions that close, so that there are new histories too.
            send(place, [seen(other, number, 100 + 41 * (number - 7))])
            number += 1
            time.sleep(0.3)
            return not any(
                USER.encode() in keys(client, topic, partitions, isolation)
                for topic in compacted
                for isolation in ("read_committed", "read_uncommitted")
            )

        until(gone)
        assert (status(url, USER), status(url, other)) == (404, 200)
    for path in (store, tmp_path / "sidecar" / "serve"):
        kept = Store(path)
        entries = list(kept.items(b"", b"\xff"))
        kept.close()
        assert any(other.encode() in key for key, _ in entries)
        assert not any(USER.encode() in key + value for key, value in entries)


def run(bootstrap: str, prefix: str, *arguments: str, text: bytes = b"") -> Result:
    flags = ["--bootstrap", bootstrap, "--topic-prefix", prefix]
    result = CliRunner().invoke(group, ["forget", *arguments, *flags], input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_command_puts_one_event_for_each_user_on_clicks(any_broker: Broker, tmp_path: Path) -> None:
    client: Client = {"bootstrap.servers": any_broker.bootstrap}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    topics.ensure(client, names, partitions=3)
    before = int(time.time() * 1000)
    says = run(any_broker.bootstrap, names.prefix, "ada").stdout
    assert says.startswith("ada: forget stands at ")
    assert f"{names.clicks} (7 days), {names.sessions} (7 days), {names.dead_letters} (7 days)" in says
    batch = ("--from", "-", "--json")
    report = json.loads(
        run(any_broker.bootstrap, names.prefix, *batch, text="bob\r\n\nzoë\nbob\n".encode()).stdout
    )
    assert sorted(one["user_id"] for one in report["forgotten"]) == ["bob", "zoë"]
    file = tmp_path / "users"
    file.write_text("cy\n")
    assert "1 user to forget" in run(any_broker.bootstrap, names.prefix, "--from", str(file)).stdout
    with pytest.raises(UserError, match=r"'__x' is no user id.*nobody was forgotten"):
        run(any_broker.bootstrap, names.prefix, "eve", "__x")
    with pytest.raises(UserError, match="not UTF-8"):
        run(any_broker.bootstrap, names.prefix, "--from", "-", text=b"eve\n\xff\n")
    assert run(any_broker.bootstrap, names.prefix).exit_code == 2
    found = {}
    with reader(client) as source:
        for number in range(3):
            for messages, _ in source.read(names.clicks, number):
                for message in messages:
                    event = decode(message.value(), message.key())
                    assert isinstance(event, Forget)
                    assert partition_of(event.user_id.encode(), 3) == number
                    assert before <= event.timestamp <= time.time() * 1000
                    assert message.timestamp()[1] == event.timestamp
                    found[event.event_id] = event.user_id
    assert sorted(found.values()) == ["ada", "bob", "cy", "zoë"]


def test_without_topics_it_says_how_to_make_them(embedded: Broker) -> None:
    with pytest.raises(UserError, match="no topic absent-clicks; make it"):
        run(embedded.bootstrap, "absent-", "ada")
