"""The path of a click with real parts: a broker, a worker and a sidecar as processes, asked over HTTP."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer

from insession.online import Producing
from insession.processes import COMMAND
from insession.running import running
from insession.sidecar import Sidecar
from models.errors import UserError
from models.events import Click, encode
from models.rank import Candidate
from models.recording import Header, Record, Writer, partition_of, read
from models.states import decode_embedding
from models.topics import CHECKPOINT_KEY, Topics
from serving.api import RankRequest, RankResponse
from streams import broker, record, replay, topics
from streams.broker import Broker
from streams.reader import reader
from streams.topics import Client
from tests.conftest import kafka_home
from tests.path import (
    PARTITIONS,
    as_record,
    click,
    delete,
    ends,
    expected,
    published,
    records,
    send,
    standing,
    wait_until_applied,
    worker,
)


def test_what_is_published_is_what_offline_gives_whenever_the_worker_is_killed(
    place: tuple[Client, Topics], bundles: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    sent = records(1_200)
    first = len(sent) // 3
    with worker(place, bundles, tmp_path / "state") as process:
        send(place, sent[:first])
        wait_until_applied(place, ends(sent[:first], standing(place, sent[:first])))
        # On the embedded broker a dead member keeps its place in the group for a long while: there it ends itself.
        kafka = "kafka" in request.node.callspec.id
        process.popen.send_signal(signal.SIGKILL if kafka else signal.SIGTERM)
        assert process.popen.wait(20) == (-signal.SIGKILL if kafka else 0)
    send(place, sent[first:])
    offsets = standing(place, sent)
    # Half of it is done by a worker that has the states of the first, and is killed at work; the rest by one that has none.
    with worker(place, bundles, tmp_path / "state") as process:
        if kafka:
            time.sleep(0.3)
            process.popen.kill()
    with worker(place, bundles, tmp_path / "empty"):
        wait_until_applied(place, ends(sent, offsets))
    assert published(place) == expected(sent, offsets, bundles)
    embeddings, _, sessions, dead = published(place)
    assert len(embeddings) == 20  # type: ignore[arg-type]
    assert len(sessions) > 100  # type: ignore[arg-type]
    assert {reason for _, reason, _, _ in dead} == {b"unreadable", b"late"}  # type: ignore[attr-defined]


def test_a_click_changes_the_next_ranking(any_broker: Broker, bundles: Path) -> None:
    prefix = f"test-{secrets.token_hex(4)}-"
    ours = running(bundles, bootstrap=any_broker.bootstrap, prefix=prefix, partitions=PARTITIONS)
    with ours as (client, names, sidecar):
        candidates = tuple(Candidate(f"l{number}") for number in range(20))
        request = RankRequest(user_id="ann", candidates=candidates, deadline_ms=10_000)
        before = sidecar.rank(request)
        assert before.outcome == "unknown-user"
        assert order(before) == [candidate.listing_id for candidate in candidates]

        producing = Producing(client, names.clicks)
        now = int(time.time() * 1000)
        event = Click(event_id="e1", user_id="ann", timestamp=now, listing_id="l15")
        producing.produce(partition_of(b"ann", PARTITIONS), as_record(event))
        last = producing.last(b"ann")
        assert last is not None
        request = msgspec.structs.replace(request, min_offset=last[1], explain=True)
        after = sidecar.rank(request)
        assert after.outcome == "ranked"
        assert order(after)[0] == "l15"
        assert order(after) != order(before)
        for result in after.results:
            assert sum((result.contributions or {}).values()) == pytest.approx(result.score, abs=1e-4)


def order(answer: RankResponse) -> list[str]:
    return [result.listing_id for result in answer.results]


def test_a_recorded_topic_is_replayed_to_the_same_records(
    place: tuple[Client, Topics], any_broker: Broker, tmp_path: Path
) -> None:
    client, names = place
    odd = Record(1, None, 1_700_000_000_000, None, (("h", b"\xff"),), b"\xff\x00")
    sent = [*records(60), odd]
    path = tmp_path / "a.jsonl.zst"
    with Writer(path, Header(topic="clicks", partitions=PARTITIONS)) as writer:
        for item in sent:
            writer.write(item)
    assert replay.replay(client, path, names.clicks, lambda done: None) == len(sent)
    again = tmp_path / "b.jsonl.zst"
    assert record.record(client, names.clicks, again, lambda done: None).records == len(sent)
    header, found = read(again)
    assert header.partitions == PARTITIONS

    def by_partition(items: list[Record]) -> list[list[tuple[object, ...]]]:
        return [
            [(i.timestamp, i.key, i.headers, i.value) for i in items if i.partition == number]
            for number in range(PARTITIONS)
        ]

    assert by_partition(list(found)) == by_partition(sent)


def test_replay_refuses_a_topic_that_forgets(any_broker: Broker, tmp_path: Path) -> None:
    client: Client = {"bootstrap.servers": any_broker.bootstrap}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    topics.ensure(client, names, partitions=PARTITIONS, retention_ms=60_000)
    with pytest.raises(UserError, match="retention forever"):
        replay.replay(client, tmp_path / "none", names.clicks, lambda done: None)


def test_outputs_with_other_partitions_are_refused(any_broker: Broker) -> None:
    client: Client = {"bootstrap.servers": any_broker.bootstrap}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    topics.ensure(client, names, partitions=1)
    delete(client, names.sessions)
    topics.ensure(client, names, partitions=3)
    with pytest.raises(UserError, match="must be equal"):
        topics.require(client, names)


def test_topics_that_differ_from_what_is_asked_for_are_not_ok(any_broker: Broker) -> None:
    client: Client = {"bootstrap.servers": any_broker.bootstrap}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    missing = topics.check(topics.describe(client, names.all), names)
    assert [finding.ok for finding in missing] == [False] * len(names.all)
    assert f"`insession topics --topic-prefix {names.prefix}`" in missing[0].todo
    with pytest.raises(UserError, match=f"{names.clicks} is missing"):
        topics.require(client, names)
    made = topics.ensure(client, names, partitions=2)
    assert [(finding.topic, finding.ok) for finding in made] == [(name, True) for name in names.all]
    assert all(finding.ok for finding in topics.ensure(client, names))
    other = {finding.topic: finding for finding in topics.ensure(client, names, partitions=8)}
    assert {name for name in names.all if not other[name].ok} == {names.clicks, *names.outputs}
    assert "has 2 partitions, not the 8 asked for" in other[names.clicks].says
    found = topics.describe(client, names.all)
    assert "retention.ms" in found[names.clicks].settings
    kept = {finding.topic for finding in topics.check(found, names, retention_ms=-1) if not finding.ok}
    assert kept == {names.clicks, names.sessions, names.dead_letters}


def test_the_command_takes_flag_and_environment_for_asked(embedded: Broker) -> None:
    prefix = f"test-{secrets.token_hex(4)}-"
    flags = ["topics", "--bootstrap", embedded.bootstrap, "--topic-prefix", prefix]

    def says(*more: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
        command = [*COMMAND, *flags, *more]
        env = {**os.environ, **(environment or {})}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env)
        return done.returncode, done.stdout

    assert says("--partitions", "2")[0] == 0
    assert says()[0] == 0
    for asked in (says("--partitions", "8"), says("--check", environment={"INSESSION_PARTITIONS": "8"})):
        assert asked[0] == 1
        assert "not the 8 asked for" in asked[1]
    code, said = says("--retention", "forever")
    assert code == 1
    assert "retention.ms=604800000, must have -1; set it with kafka-configs" in said


@pytest.mark.parametrize("kind", ["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def test_a_broker_does_not_start_on_a_port_that_is_taken(embedded: Broker, kind: str) -> None:
    port = int(embedded.bootstrap.rpartition(":")[2])
    home = kafka_home() if kind == "kafka" else None
    with pytest.raises(UserError, match=f"can't listen on 127.0.0.1:{port}: Address already in use"):
        broker.run(home, port).__enter__()


@pytest.mark.kafka
def test_a_topic_made_again_is_refused_until_told_to_begin_afresh(
    kafka: Broker, bundles: Path, tmp_path: Path
) -> None:
    client: Client = {"bootstrap.servers": kafka.bootstrap}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    place = (client, names)
    topics.ensure(client, names, partitions=PARTITIONS, retention_ms=-1)
    sent = records(150)
    with worker(place, bundles, tmp_path / "state"):
        send(place, sent)
        wait_until_applied(place, ends(sent, standing(place, sent)))
    delete(client, names.clicks)
    topics.ensure(client, names, partitions=PARTITIONS, retention_ms=-1)
    with (
        pytest.raises(UserError, match=r"made again .* --afresh"),
        worker(place, bundles, tmp_path / "state"),
    ):
        pass
    fresh = records(40, users=3)
    with worker(place, bundles, tmp_path / "state", "--afresh"):
        send(place, fresh)
        wait_until_applied(place, ends(fresh, standing(place, fresh)))
    embeddings, *_ = published(place)
    live = {key: value for key, value in embeddings.items() if value is not None}  # type: ignore[attr-defined]
    assert set(live) == {b"u0", b"u1", b"u2"}
    assert len(embeddings) == 20  # type: ignore[arg-type]
    assert all(decode_embedding(value).state.sessions for value in live.values())


@pytest.mark.kafka
def test_what_an_aborted_transaction_wrote_is_never_applied(
    kafka: Broker, bundles: Path, tmp_path: Path
) -> None:
    client: Client = {"bootstrap.servers": kafka.bootstrap}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    place = (client, names)
    topics.ensure(client, names, partitions=1, retention_ms=-1)
    producer = Producer({**client, "transactional.id": names.prefix})
    producer.init_transactions()
    for user, commits in (("aborted", False), ("kept", True)):
        producer.begin_transaction()
        event = click(user, 1, 1_700_000_000_000)
        producer.produce(names.clicks, key=user, value=encode(event), timestamp=event.timestamp)
        producer.flush()
        producer.commit_transaction() if commits else producer.abort_transaction()
    with worker(place, bundles, tmp_path / "state"):
        wait_until_applied(place, {0: 3})
    with reader(client) as source:
        keys = {m.key() for messages, _ in source.read(names.user_embeddings, 0) for m in messages}
    assert keys == {b"kept", CHECKPOINT_KEY}


def test_a_second_worker_on_one_state_folder_is_refused(
    place: tuple[Client, Topics], bundles: Path, tmp_path: Path
) -> None:
    with (
        worker(place, bundles, tmp_path / "state"),
        pytest.raises(UserError, match="folder of its own"),
        worker(place, bundles, tmp_path / "state"),
    ):
        pass


@pytest.mark.parametrize("kind", ["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def test_the_demo_ends_with_a_table_and_leaves_nothing_running(kind: str) -> None:
    flags = ["--kafka-home", str(kafka_home())] if kind == "kafka" else []
    command = [sys.executable, "-m", "insession.main", "demo", "--headless", "--visits", "40", "--json"]
    done = subprocess.run([*command, *flags], capture_output=True, check=False, timeout=170)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    report = msgspec.json.decode(done.stdout)
    assert report["visits"] == 40
    assert report["outcomes"].keys() <= {"ranked", "unknown-user", "no-known-candidates"}
    assert report["reranked"]["mrr"] > report["own_order"]["mrr"]
    left = subprocess.run(["pgrep", "-f", "insession-demo-"], capture_output=True, check=False)
    assert left.stdout == b""


def test_the_demo_notices_a_taken_port_before_it_works_for_a_minute() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [*COMMAND, "demo", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 2
    assert done.stderr.startswith(f"insession: can't listen on 127.0.0.1:{port}: Address already in use")
    assert done.stderr.count("\n") == 1


def test_no_sidecar_is_a_clear_error() -> None:
    with closing(Sidecar("http://127.0.0.1:1")) as sidecar, pytest.raises(UserError, match="no sidecar"):
        sidecar.wait_until_ready()
