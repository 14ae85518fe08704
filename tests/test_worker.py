"""What a worker takes and tells while it works: new bundles, announced listings, metrics, health."""

from __future__ import annotations

import re
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

import msgspec
import pytest

from insession.processes import Process, insession
from insession.sidecar import Sidecar
from models import bundle
from models.bundle import Bundle
from models.events import Click, encode
from models.rank import Candidate
from models.recording import Record, partition_of
from models.topics import Topics
from serving.api import RankRequest
from streams.topics import Client
from tests.made import a_bundle, unit
from tests.path import (
    NEW,
    PARTITIONS,
    announce,
    embeddings,
    ends,
    placed,
    send,
    standing,
    until,
    wait_until_applied,
    worker,
)

LIVE = 1_700_000_000_000


def clicks(*users: str, count: int = 3, at: int = LIVE) -> list[Record]:
    return [
        Record(
            partition_of(user.encode(), PARTITIONS),
            None,
            at + number * 1_000,
            user.encode(),
            (),
            encode(
                Click(
                    event_id=f"{user}-{at}-{number}",
                    user_id=user,
                    timestamp=at + number * 1_000,
                    listing_id=f"l{(number + len(user)) % 40}",
                )
            ),
        )
        for user in users
        for number in range(count)
    ]


def log_of(process: Process) -> str:
    return process.log.read_text()


def other(size: int = 40, seed: int = 9) -> Bundle:
    return a_bundle(vectors=unit(size, 8, seed))


def test_a_new_bundle_is_taken_without_a_stop_and_every_open_vector_becomes_its(
    place: tuple[Client, Topics], bundles: Path, tmp_path: Path
) -> None:
    users = [f"user{number}" for number in range(2_500)]
    sent = clicks(*users, count=1)
    with worker(place, bundles, tmp_path / "state") as process:
        send(place, sent)
        wait_until_applied(place, ends(sent, standing(place, sent)))
        before = embeddings(place)
        new = bundle.load(bundle.write(bundles, other()))
        until(lambda: {user.bundle for user in embeddings(place).values()} == {new.name})
        after = embeddings(place)
        assert after.keys() == before.keys() == set(users)
        for name, user in after.items():
            assert user.state == before[name].state
            assert user.offset == before[name].offset
            assert user.vector == new.encode(user.state.sessions[-1])
        assert process.popen.poll() is None
    # A worker that starts with it has nothing to compute again: what it did once stands in its store.
    with worker(place, bundles, tmp_path / "state", "--health-port", "0") as process:
        more = clicks("user1", count=2, at=LIVE + 60_000)
        send(place, more)
        until(lambda: embeddings(place)["user1"].as_of == LIVE + 61_000)
        assert "insession_worker_vectors_recomputed_total 0.0" in metrics(process)


def test_a_broken_bundle_is_refused_and_the_old_one_stays(
    place: tuple[Client, Topics], bundles: Path, tmp_path: Path
) -> None:
    old = bundle.load(bundles)
    with worker(place, bundles, tmp_path / "state", "--health-port", "0") as process:
        broken = bundle.write(tmp_path / "elsewhere", other())
        (broken / "vectors.safetensors").write_bytes(b"no")
        broken.rename(bundles / broken.name)
        bundle.point(bundles, broken.name)
        until(lambda: "refused" in log_of(process))
        sent = clicks("ann")
        send(place, sent)
        until(lambda: "ann" in embeddings(place))
        assert embeddings(place)["ann"].bundle == old.name
        assert log_of(process).count("refused") == 1
        assert "insession_worker_bundles_refused_total 1.0" in metrics(process)
        # Mended in its place, as where its files are still being copied, it is taken.
        whole = bundle.write(tmp_path / "whole", other())
        shutil.copy(whole / "vectors.safetensors", bundles / broken.name / "vectors.safetensors")
        until(lambda: embeddings(place)["ann"].bundle == broken.name)


def test_an_announced_listing_has_a_vector_within_seconds_in_worker_and_sidecar(
    place: tuple[Client, Topics], tmp_path: Path
) -> None:
    client, names = place
    made = bundle.load(bundle.write(tmp_path / "bundles", placed()))
    made.announce("new", NEW)
    expected = made.vectors[made.row["new"]]
    flags = ["--bootstrap", str(client["bootstrap.servers"]), "--topic-prefix", names.prefix]
    flags += ["--bundle", str(tmp_path / "bundles"), "--state", str(tmp_path / "state")]
    with (
        worker(place, tmp_path / "bundles", tmp_path / "state"),
        insession("serve", *flags, "--port", "0", ready="serving on ", log=tmp_path / "serve.log") as serving,
    ):
        sidecar = Sidecar(serving.line.removeprefix("serving on "))
        sidecar.wait_until_ready()
        begun = time.monotonic()
        announce(place, NEW)

        def similar() -> bool:
            try:
                with urllib.request.urlopen(f"{sidecar.url}/v1/similar/new?k=3") as answer:
                    found = msgspec.json.decode(answer.read())["results"]
            except urllib.error.HTTPError:
                return False
            best = float((made.vectors[:40] @ expected).max())
            return bool(found[0]["similarity"] == pytest.approx(best, abs=1e-4))

        until(similar, 5)
        now = int(time.time() * 1000)
        event = Click(event_id="e", user_id="ann", timestamp=now, listing_id="new")
        partition = partition_of(b"ann", PARTITIONS)
        send(place, [Record(partition, None, now, b"ann", (), encode(event))])
        until(lambda: "ann" in embeddings(place))
        assert embeddings(place)["ann"].vector == pytest.approx(expected.tolist(), abs=2e-6)
        candidates = tuple(Candidate(name) for name in ("l30", "l20", "new", "l1"))
        request = RankRequest(
            user_id="ann", candidates=candidates, partition=partition, min_offset=0, deadline_ms=5_000
        )
        answer = sidecar.rank(request)
        assert answer.outcome == "ranked"
        assert answer.results[0].listing_id == "new"
        assert all(result.known for result in answer.results)
        assert time.monotonic() - begun < 15
        sidecar.close()
    # One that starts later reads the listings first.
    sent = clicks("bob", count=1)
    sent[0].value = encode(Click(event_id="b", user_id="bob", timestamp=now + 1, listing_id="new"))
    sent[0].timestamp = now + 1
    with worker(place, tmp_path / "bundles", tmp_path / "other"):
        send(place, sent)
        until(lambda: "bob" in embeddings(place))
    assert embeddings(place)["bob"].vector == embeddings(place)["ann"].vector


def port_of(process: Process) -> int:
    found = re.search(r"http://[\d.]+:(\d+)", log_of(process))
    assert found is not None
    return int(found[1])


def ask(process: Process, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port_of(process)}{path}") as answer:
        content: bytes = answer.read()
    return content


def metrics(process: Process) -> str:
    return ask(process, "/metrics").decode()


def value(text: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def test_metrics_and_health_of_a_worker(place: tuple[Client, Topics], bundles: Path, tmp_path: Path) -> None:
    sent = clicks("ann", "bob")
    sent.append(sent[-1])
    sent.append(Record(0, None, LIVE, b"x", (), b"{"))
    late = LIVE - 3_600_000
    sent += [Record(number, None, LIVE, None, (), tick(LIVE + 10_000)) for number in range(PARTITIONS)]
    sent += clicks("late", count=1, at=late)
    sent += [
        Record(number, None, at, None, (), tick(at))
        for number in range(PARTITIONS)
        for at in [LIVE * 2 - late]
    ]
    with worker(place, bundles, tmp_path / "state", "--health-port", "0") as process:
        send(place, sent)
        wait_until_applied(place, ends(sent, standing(place, sent)))
        assert ask(process, "/readyz") == b'{"ready":true,"reasons":[]}'
        assert ask(process, "/healthz") == b'{"status":"ok"}'
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(process, "/else")
        until(lambda: value(metrics(process), 'insession_worker_lag_records{partition="0"}') == 0)
        text = metrics(process)
        assert value(text, 'insession_worker_events_total{type="click"}') == 7
        assert value(text, 'insession_worker_events_total{type="tick"}') == 2 * PARTITIONS
        assert value(text, "insession_worker_duplicates_total") == 1
        assert value(text, 'insession_worker_dead_letters_total{reason="unreadable"}') == 1
        assert value(text, 'insession_worker_dead_letters_total{reason="late"}') == 1
        assert value(text, "insession_worker_sessions_opened_total") == 2
        assert value(text, "insession_worker_sessions_closed_total") == 2
        assert value(text, "insession_worker_partitions") == PARTITIONS
        assert value(text, "insession_worker_batch_records_sum") == len(sent)
        for stage in ("apply", "publish", "commit", "store"):
            assert value(text, f'insession_worker_stage_seconds_count{{stage="{stage}"}}') >= 2
        assert value(text, 'insession_worker_watermark_delay_seconds{partition="0"}') > 1_000
        assert f'insession_worker_bundle{{bundle="{bundle.load(bundles).name}"}} 1.0' in text
        lines = [msgspec.json.decode(line) for line in log_of(process).splitlines()]
        assert {"time", "level", "logger", "message"} <= lines[0].keys()


def tick(timestamp: int) -> bytes:
    from models.events import Tick

    return encode(Tick(event_id=f"t{timestamp}", timestamp=timestamp))


def test_a_health_port_that_is_taken_is_a_clear_error(
    place: tuple[Client, Topics], bundles: Path, tmp_path: Path
) -> None:
    from models.errors import UserError

    with worker(place, bundles, tmp_path / "state", "--health-port", "0") as process:
        taken = str(port_of(process))
        with (
            pytest.raises(UserError, match="can't listen"),
            worker(place, bundles, tmp_path / "other", "--health-port", taken),
        ):
            pass
