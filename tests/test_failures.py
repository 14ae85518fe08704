"""What fails in a worker, or is taken from it, changes nothing of what is published in the end. On Apache Kafka."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_END, TopicPartition
from confluent_kafka.admin import AdminClient

from models.errors import UserError
from models.topics import Topics
from streams import topics
from streams.broker import Broker, end
from streams.topics import Client
from tests.path import (
    PARTITIONS,
    allow,
    ends,
    expected,
    published,
    records,
    send,
    standing,
    wait_until_applied,
    worker,
)

pytestmark = pytest.mark.kafka
Place = tuple[Client, Topics]


@pytest.fixture
def place(kafka: Broker) -> Place:
    client: Client = {"bootstrap.servers": kafka.bootstrap}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    topics.ensure(client, names, partitions=PARTITIONS, retention_ms=-1)
    return client, names


@contextmanager
def faulty(fault: str, place: Place, bundles: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker with a fault; its log is `folder`.log."""
    client, names = place
    command = [sys.executable, "-P", "-m", "tests.faulty_worker", fault, "worker"]
    command += ["--bootstrap", str(client["bootstrap.servers"]), "--topic-prefix", names.prefix]
    command += ["--bundle", str(bundles), "--state", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with folder.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        yield process
    finally:
        end(process)


def ready(folder: Path) -> None:
    """Wait until a faulty worker is at work."""
    deadline = time.monotonic() + 30
    while "worker ready" not in folder.with_suffix(".log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def feed(place: Place, count: int = 600) -> tuple[list, list[int]]:  # type: ignore[type-arg]
    """Send records some at a time, so that they come in many batches."""
    sent = records(count)
    for at in range(0, len(sent), 60):
        send(place, sent[at : at + 60])
        time.sleep(0.05)
    return sent, standing(place, sent)


def check(place: Place, sent: list, offsets: list[int], bundles: Path) -> None:  # type: ignore[type-arg]
    wait_until_applied(place, ends(sent, offsets))
    assert published(place) == expected(sent, offsets, bundles)


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        ("commit-outcome-unknown", 1, "the outcome is not known"),
        ("dies-between-commit-and-store", -signal.SIGKILL, ""),
        ("dies-with-an-open-transaction", -signal.SIGKILL, ""),
    ],
)
def test_a_worker_that_fails_at_a_commit_loses_nothing_and_counts_nothing_twice(
    place: Place, bundles: Path, tmp_path: Path, fault: str, code: int, says: str
) -> None:
    with faulty(fault, place, bundles, tmp_path / "state") as process:
        ready(tmp_path / "state")
        sent, offsets = feed(place)
        assert process.wait(30) == code
    assert says in (tmp_path / "state.log").read_text()
    # By the one that comes after it on the same disk, and by one that has nothing.
    with worker(place, bundles, tmp_path / "state"):
        check(place, sent, offsets, bundles)
    more = records(700)[len(sent) :]
    with worker(place, bundles, tmp_path / "empty"):
        send(place, more)
        check(place, sent + more, standing(place, sent + more), bundles)


def test_publishing_that_is_refused_ends_the_worker_and_goes_on_where_it_was(
    place: Place, bundles: Path, tmp_path: Path
) -> None:
    client, names = place

    with worker(place, bundles, tmp_path / "state") as process:
        allow(client, names.user_embeddings, "max.message.bytes", "500")
        sent, offsets = feed(place, 100)
        assert process.popen.wait(40) == 1
        assert "insession: Kafka: " in process.log.read_text()
    allow(client, names.user_embeddings, "max.message.bytes", str(4 * 1024 * 1024))
    with worker(place, bundles, tmp_path / "state"):
        check(place, sent, offsets, bundles)


@pytest.mark.parametrize(("fault", "code"), [("commits-slowly", None), ("commits-too-slowly", 1)])
def test_a_partition_given_back_during_a_commit_is_applied_once(
    place: Place, bundles: Path, tmp_path: Path, fault: str, code: int | None
) -> None:
    log = tmp_path / "one.log"
    with faulty(fault, place, bundles, tmp_path / "one") as process:
        ready(tmp_path / "one")
        sent, offsets = feed(place)
        deadline = time.monotonic() + 20
        while "committing slowly" not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # More than a batch, so that the next one is ready and waits for the commit.
        send(place, records(3_600)[len(sent) :])
        sent = records(3_600)
        offsets = standing(place, sent)
        with worker(place, bundles, tmp_path / "two"):
            if code is not None:  # Whoever was too slow is fenced, and ends.
                assert process.wait(40) == code
            check(place, sent, offsets, bundles)
            assert process.poll() == code


def test_clicks_that_go_missing_under_a_running_worker_end_it(
    place: Place, bundles: Path, tmp_path: Path
) -> None:
    client, names = place
    first, rest = records(60), records(400)[60:]
    with worker(place, bundles, tmp_path / "state") as process:
        send(place, first)
        wait_until_applied(place, ends(first, standing(place, first)))
        process.popen.send_signal(signal.SIGSTOP)
        send(place, rest[:150])
        gone = [TopicPartition(names.clicks, number, OFFSET_END) for number in range(PARTITIONS)]
        admin = AdminClient(dict(client))
        for done in admin.delete_records(gone).values():
            done.result()
        send(place, rest[150:])
        process.popen.send_signal(signal.SIGCONT)
        assert process.popen.wait(30) == 1
    with (
        pytest.raises(UserError, match=r"clicks are missing.*--afresh"),
        worker(place, bundles, tmp_path / "state"),
    ):
        pass
