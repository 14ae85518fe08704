"""`insession record` and `replay` on brokers: interrupted, killed, gone on with, and compared with what is there."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from insession.processes import COMMAND
from models import lines
from models.errors import UserError
from models.recording import Header, Record, Writer, count, read
from models.topics import Topics
from streams import record, replay, topics
from streams.broker import Broker
from streams.record import Missing
from streams.topics import Client
from tests.path import Place, as_record, click, delete, records, send

MANY = 40_000


def by_partition(items: list[Record]) -> list[list[Record]]:
    return [[item for item in items if item.partition == number] for number in range(2)]


def sent(some: list[Record]) -> list[list[tuple[object, ...]]]:
    """What must come back of records: each partition's, without their offsets."""
    return [
        [(item.timestamp, item.key, item.headers, item.value) for item in partition]
        for partition in by_partition(some)
    ]


def run(place: Place, verb: str, *arguments: str) -> subprocess.Popen[bytes]:
    client, names = place
    common = ["--bootstrap", str(client["bootstrap.servers"]), "--topic-prefix", names.prefix]
    command = [*COMMAND, verb, *arguments, *common]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(popen: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = popen.communicate(timeout=60)
    return popen.returncode, out.decode(), err.decode()


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def many() -> list[Record]:
    """Enough that a recording of it can be interrupted."""
    return [
        Record(
            n % 2,
            None,
            1_700_000_000_000 + n,
            b"u%d" % n,
            (("n", b"%d" % n),),
            secrets.token_hex(200).encode(),
        )
        for n in range(MANY)
    ]


def test_interrupted_and_gone_on_with_it_is_what_one_run_gives(place: Place, tmp_path: Path) -> None:
    client, names = place
    send(place, records(400))
    whole, parts = tmp_path / "whole.jsonl.zst", tmp_path / "parts.jsonl.zst"
    record.record(client, names.clicks, whole, lambda done: None)
    expected = list(read(whole)[1])
    assert len(expected) > 400
    for size in (1, 150, 151):
        told: list[int] = []
        done = record.record(
            client,
            names.clicks,
            parts,
            told.append,
            stop=lambda told=told, size=size: len(told) >= size,  # type: ignore[misc]
        )
        assert done.records > done.before
        assert list(read(parts)[1]) == expected[: done.records]
    done = record.record(client, names.clicks, parts, lambda done: None)
    assert done.records == len(expected)
    assert done.missing == ()
    assert list(read(parts)[1]) == expected
    send(place, records(100))
    record.record(client, names.clicks, parts, lambda done: None)
    record.record(client, names.clicks, tmp_path / "later.jsonl.zst", lambda done: None)
    later = list(read(tmp_path / "later.jsonl.zst")[1])
    assert by_partition(list(read(parts)[1])) == by_partition(later)


def test_killed_again_and_again_it_is_gone_on_with(place: Place, tmp_path: Path) -> None:
    there = many()
    send(place, there)
    path, part = tmp_path / "r.jsonl.zst", tmp_path / "r.jsonl.zst.part"
    kept = 0
    for _ in range(2):
        popen = run(place, "record", "--out", str(path))
        until(lambda: popen.poll() is not None or (part.exists() and part.stat().st_size > kept))  # noqa: B023
        popen.kill()
        assert ended(popen)[0] == -signal.SIGKILL
        assert not path.exists()
        assert lines.whole(part, plain=False) >= kept
        kept = part.stat().st_size
    code, out, _ = ended(run(place, "record", "--out", str(path), "--json"))
    assert code == 0
    report = json.loads(out)
    assert report["records"] == MANY
    assert 0 < report["new"] < MANY
    assert report["missing"] == []
    assert sent(list(read(path)[1])) == sent(there)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_end_it_leaves_a_whole_recording(
    embedded: Broker, tmp_path: Path, number: signal.Signals
) -> None:
    place: Place = ({"bootstrap.servers": embedded.bootstrap}, Topics(f"test-{secrets.token_hex(4)}-"))
    topics.ensure(*place, partitions=2, retention_ms=-1)
    there = many()
    send(place, there)
    path, part = tmp_path / "r.jsonl.zst", tmp_path / "r.jsonl.zst.part"
    popen = run(place, "record", "--out", str(path))
    until(lambda: part.exists() and part.stat().st_size > 0)
    popen.send_signal(number)
    code, out, _ = ended(popen)
    assert code == 128 + number
    assert "the same command goes on from here" in out
    assert 0 < count(path) < MANY
    assert ended(run(place, "record", "--out", str(path)))[0] == 0
    assert sent(list(read(path)[1])) == sent(there)


def test_follow_goes_on_until_it_is_told_to_end(place: Place, tmp_path: Path) -> None:
    first, second, third = records(60), records(80), records(100)
    path, part = tmp_path / "r.jsonl", tmp_path / "r.jsonl.part"
    send(place, first)
    popen = run(place, "record", "--follow", "--out", str(path))
    until(part.exists)
    time.sleep(0.5)
    send(place, second)
    # What came is on disk in seconds, whatever becomes of the process.
    until(lambda: part.read_bytes().count(b"\n") == 1 + len(first) + len(second))
    popen.send_signal(signal.SIGINT)
    code, out, _ = ended(popen)
    assert code == 0
    assert f"{len(first) + len(second):,} records" in out
    assert sent(list(read(path)[1])) == sent([*first, *second])
    send(place, third)
    popen = run(place, "record", "--follow", "--out", str(path), "--json")
    until(lambda: part.exists() and part.read_bytes().count(b"\n") == 1 + len(first + second + third))
    popen.send_signal(signal.SIGTERM)
    code, out, _ = ended(popen)
    assert code == 0
    assert json.loads(out)["new"] == len(third)
    assert sent(list(read(path)[1])) == sent([*first, *second, *third])


@pytest.mark.kafka
def test_what_retention_deleted_between_two_runs_is_said(kafka: Broker, tmp_path: Path) -> None:
    client: Client = {"bootstrap.servers": kafka.bootstrap}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    place = (client, names)
    topics.ensure(client, names, partitions=2, retention_ms=-1)
    path = tmp_path / "r.jsonl.zst"
    one = [Record(0, None, 1_700_000_000_000 + n, b"u", (), b"%d" % n) for n in range(30)]
    send(place, one[:10])
    record.record(client, names.clicks, path, lambda done: None)
    other = [Record(1, None, item.timestamp, item.key, (), item.value) for item in one[:5]]
    send(place, [*one[10:], *other])
    admin = AdminClient(dict(client))
    gone = [TopicPartition(names.clicks, 0, 25), TopicPartition(names.clicks, 1, 5)]
    for deleted in admin.delete_records(gone).values():
        deleted.result()
    code, out, err = ended(run(place, "record", "--out", str(path), "--json"))
    assert code == 0
    assert "offsets 10 to 24 of partition 0 are missing" in err
    # Nothing was ever recorded of this one, and it began at 0.
    assert "offsets 0 to 4 of partition 1 are missing" in err
    assert json.loads(out)["missing"] == [
        {"partition": 0, "first": 10, "last": 24},
        {"partition": 1, "first": 0, "last": 4},
    ]
    assert [item.value for item in read(path)[1]] == [b"%d" % n for n in (*range(10), *range(25, 30))]
    again: list[Missing] = []
    record.record(client, names.clicks, path, lambda done: None, on_missing=again.append)
    assert again == [Missing(1, 0, 4)]


def test_a_topic_made_again_is_refused(place: Place, tmp_path: Path) -> None:
    client, names = place
    send(place, records(30))
    path = tmp_path / "r.jsonl.zst"
    record.record(client, names.clicks, path, lambda done: None)
    before = path.read_bytes()
    delete(client, names.clicks)
    topics.ensure(client, names, partitions=2, retention_ms=-1)
    with pytest.raises(UserError, match=r"another topic.* give another --out"):
        record.record(client, names.clicks, path, lambda done: None)
    assert path.read_bytes() == before


def test_replay_keeps_the_recorded_pace(place: Place, tmp_path: Path) -> None:
    client, names = place
    path = tmp_path / "r.jsonl.zst"
    with Writer(path, Header(topic="clicks", partitions=2)) as writer:
        for second in range(5):
            writer.write(as_record(click("ann", second, 1_700_000_000_000 + second * 1_000)))
    began = time.monotonic()
    assert replay.replay(client, path, names.clicks, lambda done: None, speed=4) == 5
    assert 1.0 <= time.monotonic() - began < 3.5


def test_a_replay_that_is_interrupted_says_how_far_it_came(place: Place, tmp_path: Path) -> None:
    client, names = place
    path = tmp_path / "r.jsonl.zst"
    some = [as_record(click("ann", n, 1_700_000_000_000 + n * 50)) for n in range(2_000)]
    with Writer(path, Header(topic="clicks", partitions=2)) as writer:
        for item in some:
            writer.write(item)
    popen = run(place, "replay", str(path), "--speed", "1", "--json")
    until(lambda: replay.holds_records(client, names.clicks))
    popen.send_signal(signal.SIGINT)
    code, out, err = ended(popen)
    assert code == 130, err
    report = json.loads(out)
    assert report["of"] == 2_000
    assert 0 < report["records"] < 2_000
    recorded = record.record(client, names.clicks, tmp_path / "again.jsonl.zst", lambda done: None)
    assert recorded.records == report["records"]


def test_a_damaged_recording_is_refused_before_its_first_record_is_sent(place: Place, tmp_path: Path) -> None:
    client, names = place
    path = tmp_path / "r.jsonl.zst"
    with Writer(path, Header(topic="clicks", partitions=2)) as writer:
        for item in many()[:20_000]:
            writer.write(item)
    path.write_bytes(path.read_bytes()[:-100])
    code, _, err = ended(run(place, "replay", str(path)))
    assert code == 2
    assert "truncated" in err
    assert not replay.holds_records(client, names.clicks)


def test_records_of_a_megabyte_are_recorded_and_replayed(place: Place, tmp_path: Path) -> None:
    client, names = place
    path = tmp_path / "r.jsonl.zst"
    long = Record(0, None, 1_700_000_000_000, b"u", (), b"x" * 1_000_100)
    with Writer(path, Header(topic="clicks", partitions=2)) as writer:
        writer.write(long)
    assert replay.replay(client, path, names.clicks, lambda done: None) == 1
    again = tmp_path / "again.jsonl.zst"
    record.record(client, names.clicks, again, lambda done: None)
    assert sent(list(read(again)[1])) == sent([long])


def test_replaying_onto_records_is_warned_of(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with Writer(path, Header(topic="clicks", partitions=2)) as writer:
        writer.write(as_record(click("ann", 1, 1_700_000_000_000)))
    code, out, err = ended(run(place, "replay", str(path)))
    assert (code, err) == (0, "")
    assert "1 records are on" in out
    assert "holds records already" in ended(run(place, "replay", str(path)))[2]
