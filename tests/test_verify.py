"""`insession verify`: what workers put on topics is what the recording gives, and what differs is found and said."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from confluent_kafka import Producer

from insession import offline as offline_
from insession.processes import COMMAND
from insession.verify import command
from models import bundle
from models.errors import UserError
from models.events import Click, encode
from models.recording import Header, Record, Writer
from models.states import decode_embedding
from models.topics import Topics
from streams import record, replay, topics
from streams.broker import Broker
from streams.reader import reader
from streams.topics import Client
from tests.made import a_bundle
from tests.path import (
    NEW,
    PARTITIONS,
    Place,
    announce,
    as_record,
    click,
    ends,
    placed,
    records,
    send,
    standing,
    wait_until_applied,
    worker,
)


def written(path: Path, items: list[Record]) -> Path:
    with Writer(path, Header(topic="clicks", partitions=2)) as writer:
        for item in items:
            writer.write(item)
    return path


def verify(at: Place, path: Path, bundles: Path, *flags: str) -> tuple[int, str, str]:
    """The command: its exit code, what it prints, and what it says of a mistake."""
    client, names = at
    common = ["--bootstrap", str(client["bootstrap.servers"]), "--topic-prefix", names.prefix]
    arguments = [str(path), "--bundle", str(bundles), *common, *flags]
    done = CliRunner().invoke(command, arguments)
    if isinstance(done.exception, UserError):
        return 2, done.stdout, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def produce(at: Place, topic: str, partition: int, key: bytes, value: bytes | None, **more: object) -> None:
    producer = Producer({**at[0]})
    producer.produce(topic, key=key, value=value, partition=partition, **more)
    assert producer.flush(10) == 0


def latest(at: Place, topic: str, usable: Callable[[bytes], bool]) -> tuple[int, bytes, bytes]:
    """A record of a topic that is usable and still stands: its partition, key and value."""
    with reader(at[0]) as source:
        for number in range(2):
            values = {
                m.key() or b"": m.value() for messages, _ in source.read(topic, number) for m in messages
            }
            for key, value in sorted(values.items()):
                if value is not None and not key.startswith(b"__") and usable(value):
                    return number, key, value
    raise AssertionError(f"nothing usable on {topic}")


def test_what_a_worker_did_is_equal_and_each_kind_of_difference_is_found(
    place: Place, bundles: Path, tmp_path: Path
) -> None:
    client, names = place
    sent = records(600)
    path = written(tmp_path / "r.jsonl.zst", sent)

    code, _, err = verify(place, path, bundles)
    assert code == 2
    assert "does not hold all of" in err
    replay.replay(client, path, names.clicks, lambda done: None)
    code, _, err = verify(place, path, bundles)
    assert code == 2
    assert "the worker has not come to the end of the recording" in err
    assert "it has applied what is before offset 0" in err

    with worker(place, bundles, tmp_path / "state"):
        wait_until_applied(place, ends(sent, standing(place, sent)))
    code, out, err = verify(place, path, bundles)
    assert (code, out.split(":")[0]) == (0, "equal"), out + err
    report = json.loads(verify(place, path, bundles, "--json")[1])
    assert report["equal"]
    assert report["identical"] == report["records"] > 150

    # The recording of these very topics says the same, by the offsets that it has.
    recorded = tmp_path / "recorded.jsonl.zst"
    record.record(client, names.clicks, recorded, lambda done: None)
    assert verify(place, recorded, bundles)[0] == 0

    def differs(topic: str, said: str, expected: str, found: str) -> None:
        code, out, err = verify(place, path, bundles)
        assert code == 1, out + err
        where, mine, theirs, count = out.splitlines()
        assert where == said
        assert mine.startswith(f"  expected {expected}")
        assert theirs.startswith(f"  found    {found}")
        assert f"1 of {topic}" in count

    # From the last topic to the first, so that each new difference is the first that is printed.
    topic = "clicks-dead-letters"
    produce(
        place,
        names.dead_letters,
        0,
        b"zoe",
        b"odd",
        headers=[("reason", b"unreadable"), ("offset", b"3")],
    )
    differs(topic, f"{topic}, partition 0, key zoe: not expected", "nothing", '{"headers":{"reason":')
    number, key, value = latest(place, names.sessions, lambda value: True)
    produce(place, names.sessions, number, key, value)
    differs(
        "sessions", f"sessions, partition {number}, key {key.decode()}: not expected", "nothing", '{"value":{'
    )
    number, key, value = latest(place, names.user_histories, lambda value: True)
    produce(place, names.user_histories, number, key, value.replace(b'"click"', b'"booking"', 1))
    where = f"user-histories, partition {number}, key {key.decode()}"
    differs("user-histories", f"{where}: visits[0][2][0][0] differs", '"click"', '"booking"')
    number, key, value = latest(
        place, names.user_embeddings, lambda value: decode_embedding(value).vector is not None
    )
    embedding = decode_embedding(value)
    assert embedding.vector is not None
    where = f"user-embeddings, partition {number}, key {key.decode()}"
    near = tuple(component + 0.9e-5 for component in embedding.vector)
    close = msgspec.json.encode(msgspec.structs.replace(embedding, vector=near))
    produce(place, names.user_embeddings, number, key, close)
    assert json.loads(verify(place, path, bundles, "--json")[1])["close"] == 1
    moved = (*embedding.vector[:3], embedding.vector[3] + 0.25, *embedding.vector[4:])
    far = msgspec.json.encode(msgspec.structs.replace(embedding, vector=moved))
    produce(place, names.user_embeddings, number, key, far)
    differs("user-embeddings", f"{where}: vector[3] differs", str(embedding.vector[3]), str(moved[3]))
    produce(place, names.user_embeddings, number, key, None)
    differs("user-embeddings", f"{where}: missing", '{"value":{', "nothing")

    send(place, [as_record(click("later", 1, sent[-1].timestamp))])
    code, _, err = verify(place, path, bundles)
    assert code == 2
    assert "goes on behind the end of" in err


def test_a_recording_that_was_not_replayed_there_is_no_difference_but_a_mistake(
    place: Place, bundles: Path, tmp_path: Path
) -> None:
    sent = records(50)
    send(place, [*sent[:20], as_record(click("other", 1, sent[0].timestamp)), *sent[20:]])
    code, _, err = verify(place, written(tmp_path / "r.jsonl.zst", sent), bundles)
    assert code == 2
    assert "does not hold" in err
    assert "key other" in err


def test_the_vectors_of_another_bundle_differ_and_it_is_said(
    embedded: Broker, bundles: Path, tmp_path: Path
) -> None:
    client: Client = {"bootstrap.servers": embedded.bootstrap}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    topics.ensure(client, names, partitions=2, retention_ms=-1)
    sent = records(30)
    path = written(tmp_path / "r.jsonl.zst", sent)
    replay.replay(client, path, names.clicks, lambda done: None)
    with worker((client, names), bundles, tmp_path / "state"):
        wait_until_applied((client, names), ends(sent, standing((client, names), sent)))
    bundle.write(tmp_path / "bundles", a_bundle(41))
    code, out, _ = verify((client, names), path, bundles)
    assert code == 1
    assert " of user-embeddings" in out
    assert ": vector[0] differs" in out or ": bundle differs" in out


@pytest.mark.kafka
def test_offsets_are_taken_as_they_stand_where_transactions_left_marks_between(
    kafka: Broker, bundles: Path, tmp_path: Path
) -> None:
    client: Client = {"bootstrap.servers": kafka.bootstrap}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    topics.ensure(client, names, partitions=2, retention_ms=-1)
    sent = records(60)
    producer = Producer({**client, "transactional.id": names.prefix})
    producer.init_transactions()
    for commits, some in ((True, sent[:20]), (False, sent[:9]), (True, sent[20:])):
        producer.begin_transaction()
        for item in some:
            producer.produce(
                names.clicks,
                key=item.key,
                value=item.value,
                partition=item.partition or 0,
                timestamp=item.timestamp,
            )
        producer.flush()
        producer.commit_transaction() if commits else producer.abort_transaction()
    place = (client, names)
    offsets = standing(place, sent)
    assert max(offsets) > len(sent) // 2 + 2
    with worker(place, bundles, tmp_path / "state"):
        wait_until_applied(place, ends(sent, offsets))
    code, out, err = verify(place, written(tmp_path / "r.jsonl.zst", sent), bundles)
    assert code == 0, out + err


def test_announced_listings_are_known_to_both(any_broker: Broker, tmp_path: Path) -> None:
    client: Client = {"bootstrap.servers": any_broker.bootstrap}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    topics.ensure(client, names, partitions=PARTITIONS, retention_ms=-1)
    bundle.write(tmp_path / "bundles", placed())
    announce((client, names), NEW)
    clicked = Click(event_id="e", user_id="ann", timestamp=1_700_000_000_000, listing_id="new")
    sent = [Record(0, None, clicked.timestamp, b"ann", (), encode(clicked))]
    with worker((client, names), tmp_path / "bundles", tmp_path / "state"):
        send((client, names), sent)
        wait_until_applied((client, names), {0: 1})
    clicks, listings = tmp_path / "clicks.jsonl.zst", tmp_path / "listings.jsonl.zst"
    record.record(client, names.clicks, clicks, lambda done: None)
    record.record(client, names.listings, listings, lambda done: None)
    assert verify((client, names), clicks, tmp_path / "bundles")[0] == 0

    def offline(*flags: str) -> bytes:
        out = tmp_path / "out.jsonl"
        command = [*COMMAND, "replay", str(clicks), "--offline", "--bundle", str(tmp_path / "bundles")]
        done = subprocess.run([*command, "--out", str(out), *flags], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return out.read_bytes()

    assert b'"vector":null' in offline()
    assert b'"vector":[' in offline("--listings", str(listings))
    with pytest.raises(UserError, match="not a recording of listings"):
        offline_.load(tmp_path / "bundles", clicks)
