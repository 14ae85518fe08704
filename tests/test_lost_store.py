"""Sidecars and workers, as processes, whose store is damaged, deleted or can't be written: all of it comes from the topics."""

from __future__ import annotations

import http.client
import json
import resource
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from insession.processes import Process, insession
from models import bundle
from models.events import Click
from models.recording import Record
from models.topics import Topics
from streams import topics
from streams.broker import Broker
from streams.topics import Client
from tests import path
from tests.made import START, a_bundle
from tests.path import PARTITIONS, as_record, ends, expected, published, send, standing, wait_until_applied
from tests.test_follower import Worker, a_worker
from tests.test_store import in_the_middle, overwritten

SECONDS = 30.0
NAMES = [f"user{number:04}" for number in range(2_000)]


@pytest.fixture
def worker(embedded: Broker) -> Worker:
    made = a_worker(embedded)
    made.commit(0, 5, *NAMES)
    return made


class Sidecar:
    """One that runs, and what it is asked."""

    def __init__(self, process: Process) -> None:
        self.process = process

    @property
    def log(self) -> str:
        return self.process.log.read_text()

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        host, _, port = self.process.line.removeprefix("serving on http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def rank(self, name: str) -> str:
        body = {"user_id": name, "timestamp": START + 1_000, "candidates": [{"listing_id": "l1"}]}
        status, said = self.ask("POST", "/v1/rank", body)
        assert status == 200
        return str(said["outcome"])

    def ready(self) -> tuple[int, dict[str, Any]]:
        return self.ask("GET", "/readyz")

    def until(self, reached: Callable[[], object]) -> None:
        ends = time.monotonic() + SECONDS
        while not reached():
            assert time.monotonic() < ends, (self.ready(), self.log[-3_000:])
            time.sleep(0.05)

    def caught_up(self, name: str = NAMES[-1]) -> Sidecar:
        self.until(lambda: self.ready()[0] == 200 and self.rank(name) == "ranked")
        return self

    def ends_well(self) -> None:
        self.process.popen.send_signal(signal.SIGTERM)
        assert self.process.popen.wait(20) == 0
        assert "Traceback" not in self.log


@contextmanager
def sidecar(worker: Worker, folder: Path, bootstrap: str = "") -> Iterator[Sidecar]:
    if not (folder / "bundles").exists():
        bundle.write(folder / "bundles", a_bundle())
    flags = ["--bootstrap", bootstrap or str(worker.client["bootstrap.servers"])]
    flags += ["--topic-prefix", worker.names.prefix, "--bundle", str(folder / "bundles")]
    flags += ["--state", str(folder / "state"), "--port", "0"]
    with insession("serve", *flags, ready="serving on ", log=folder / "log") as running:
        yield Sidecar(running)


def filled(worker: Worker, folder: Path) -> Path:
    """The store of a sidecar that has run, and written when it last saw everything."""
    with sidecar(worker, folder) as running:
        running.caught_up()
        running.until(lambda: running.ready()[1]["seen_ms_ago"] is not None)
        running.ends_well()
    return folder / "state" / "serve"


def at_the_beginning(store: Path) -> None:
    """Damage what the store stands for, which is read at the start."""
    for table in store.glob("*.sst"):
        with table.open("r+b") as file:
            file.write(b"\xff" * 50)


@pytest.mark.parametrize(
    "damage", [overwritten("MANIFEST*"), overwritten("*.sst"), at_the_beginning], ids=str
)
def test_a_damaged_store_is_said_thrown_away_and_filled_again(
    worker: Worker, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(filled(worker, tmp_path))
    with sidecar(worker, tmp_path) as running:
        running.caught_up()
        assert running.log.count("is damaged: Corruption") == 1
        running.ends_well()


def test_damage_that_a_request_comes_upon_is_its_outcome_and_is_mended(
    worker: Worker, tmp_path: Path
) -> None:
    in_the_middle(filled(worker, tmp_path))
    # With no broker, so that what happens before it is mended stays to be seen.
    with sidecar(worker, tmp_path, "127.0.0.1:1") as running:
        outcomes = {name: running.rank(name) for name in NAMES[::2]}
        [damaged, *_] = [name for name, outcome in outcomes.items() if outcome == "unreadable-state"]
        assert set(outcomes.values()) == {"ranked", "unreadable-state"}
        lists = [
            {"user_id": name, "timestamp": START + 1_000, "candidates": [{"listing_id": "l1"}]}
            for name in (NAMES[0], damaged, NAMES[-1])
        ]
        status, said = running.ask("POST", "/v1/rank/batch", {"requests": lists})
        assert status == 200
        assert [one["outcome"] for one in said["answers"]] == ["ranked", "unreadable-state", "ranked"]
        asked = {"user_id": damaged, "timestamp": START + 1_000}
        assert running.ask("POST", "/v1/recommend", asked)[1]["outcome"] == "unreadable-state"
        assert running.ask("GET", f"/v1/similar/l1?user_id={damaged}")[1]["outcome"] == "unreadable-state"
        status, said = running.ask("GET", f"/v1/users/{damaged}")
        assert status == 500
        assert "can't be read: the store" in said["detail"]
        running.until(lambda: any("is damaged" in note for note in running.ready()[1]["notes"]))
        assert running.rank(NAMES[0]) == "ranked"
        running.ends_well()
    with sidecar(worker, tmp_path) as running:
        running.until(lambda: running.rank(damaged) == "ranked" and running.ready()[0] == 200)
        assert running.log.count("begun from nothing") == 1
        assert running.ready()[1]["notes"] == []
        running.ends_well()


def test_a_store_that_is_deleted_while_it_runs_is_no_traceback(worker: Worker, tmp_path: Path) -> None:
    with sidecar(worker, tmp_path) as running:
        running.caught_up()
        shutil.rmtree(tmp_path / "state")
        worker.commit(0, 6, "more")
        running.until(lambda: running.rank("more") == "ranked")
        running.ends_well()
    with sidecar(worker, tmp_path) as running:
        running.caught_up()
        running.ends_well()


@pytest.mark.parametrize("room", [True, False], ids=["outlived", "ended"])
def test_a_disk_that_is_full_is_told_and_outlived(worker: Worker, tmp_path: Path, room: bool) -> None:
    with sidecar(worker, tmp_path) as running:
        running.caught_up()
        pid = running.process.popen.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 17, hard))
        worker.commit(0, 6, *(f"more{number}" for number in range(1_000)))
        running.until(lambda: "File too large" in str(running.ready()[1]["notes"]))
        time.sleep(2.5)  # it tries again meanwhile
        assert running.ready()[0] == 200
        assert running.rank(NAMES[0]) == "ranked"
        assert running.log.count("File too large") == 1
        if room:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
            running.until(lambda: running.rank("more999") == "ranked")
            running.until(lambda: running.ready()[1]["notes"] == [])
            assert running.rank(NAMES[0]) == "ranked"
            assert "begun from nothing" not in running.log
            assert "can't be read" not in running.log
        running.ends_well()


def test_a_warm_start_is_ready_without_a_broker(worker: Worker, tmp_path: Path) -> None:
    filled(worker, tmp_path)
    with sidecar(worker, tmp_path, "127.0.0.1:1") as running:
        running.until(lambda: running.ready()[0] == 200)
        _, said = running.ready()
        [note] = said["notes"]
        assert "no Kafka broker answers at 127.0.0.1:1" in note
        assert " s old" in note
        assert running.rank(NAMES[0]) == "ranked"
        running.ends_well()


def test_a_start_that_was_never_caught_up_is_not_ready_without_a_broker(
    worker: Worker, tmp_path: Path
) -> None:
    with sidecar(worker, tmp_path, "127.0.0.1:1") as running:
        running.until(lambda: "no Kafka broker answers" in str(running.ready()[1]["reasons"]))
        assert running.ready()[0] == 503


def test_partitions_that_are_not_there_are_a_reason(worker: Worker, tmp_path: Path) -> None:
    bundle.write(tmp_path / "bundles", a_bundle())
    flags = ["--bootstrap", str(worker.client["bootstrap.servers"]), "--topic-prefix", worker.names.prefix]
    flags += ["--bundle", str(tmp_path / "bundles"), "--state", str(tmp_path / "state"), "--port", "0"]
    with insession("serve", *flags, "--hold", "9", ready="serving on ", log=tmp_path / "log") as process:
        running = Sidecar(process)
        running.until(lambda: "has the partitions 0 to 1, not 9" in str(running.ready()[1]["reasons"]))
        assert running.ready()[0] == 503


@pytest.fixture
def place(kafka: Broker) -> tuple[Client, Topics]:
    client: Client = {"bootstrap.servers": kafka.bootstrap}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    topics.ensure(client, names, partitions=PARTITIONS, retention_ms=-1)
    return client, names


def clicks(number: int, users: int = 2_000) -> list[Record]:
    """One of each user."""
    at = START + number * 1_000
    return [
        as_record(Click(event_id=f"{number}-{user}", user_id=f"u{user}", timestamp=at, listing_id="l1"))
        for user in range(users)
    ]


@pytest.mark.kafka
def test_a_workers_damaged_store_is_filled_again_at_the_start_and_named_later(
    place: tuple[Client, Topics], bundles: Path, tmp_path: Path
) -> None:
    sent = clicks(0)
    state = tmp_path / "state"
    with path.worker(place, bundles, state):
        send(place, sent)
        wait_until_applied(place, ends(sent, standing(place, sent)))
    stores = {*(state / "worker").glob("partition-*")}
    assert len(stores) == PARTITIONS
    for store in stores:
        in_the_middle(store)  # which the start does not come upon
    with path.worker(place, bundles, state) as process:
        more = clicks(1)
        send(place, more)
        assert process.popen.wait(30) == 2
        said = process.log.read_text().strip().splitlines()[-1]
        assert said.startswith("insession: the store ")
        assert said.endswith("; delete that folder and start again: it is filled again from the topics")
    named = Path(said.removeprefix("insession: the store ").partition(" is damaged: ")[0])
    shutil.rmtree(named)
    for store in stores - {named}:
        overwritten("MANIFEST*")(store)
    process.log.write_text("")
    with path.worker(place, bundles, state) as process:
        everything = [*sent, *more, *clicks(2)]
        send(place, everything[len(sent) + len(more) :])
        wait_until_applied(place, ends(everything, standing(place, everything)))
        assert process.log.read_text().count(" is damaged: ") == 1
    assert published(place) == expected(everything, standing(place, everything), bundles)
