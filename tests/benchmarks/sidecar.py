"""sidecar_vs_bare_asgi, rank_p99_half_load: /v1/rank under wrk, a million users in the store, all features and a learned ranker.

The server has one core and wrk the other. Bare is a bare application on the same server: it decodes the same bodies
with msgspec and answers fixed bytes of the same length. The two are asked in turns, in short rounds, at 25, 200 and
1,000 candidates and 1, 4 and 16 connections; the ratio is the one at 200 candidates and RATIO_AT connections. Every
request is of another user, with one of 500 lists. At half load the requests come at half of the rate just measured.
INSESSION_BENCH_USERS makes it fewer users.
"""

from __future__ import annotations

import http.client
import os
import re
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from insession.processes import Process, insession
from insession.progress import Progress
from insession.sidecar import Sidecar
from models.topics import Topics
from serving.api import RankResponse
from streams import broker, topics
from streams.broker import end
from streams.topics import Client
from tests.benchmarks import spent, users
from tests.benchmarks.catalogue import Catalogue, catalogue, lists
from tests.benchmarks.result import Result, compared
from tests.benchmarks.wrk import Lists, Load, at_rate, found, load, on_core

CANDIDATES, CONNECTIONS = (25, 200, 1_000), (1, 4, 16)
RATIO_AT = 16
ROUNDS, SECONDS, HALF_LOAD_SECONDS = 3, 2.0, 10.0
PARTITIONS = 4
BARE = Path(__file__).with_name("bare_asgi.py")
FLAMES = Path("build/sidecar.svg")


def run() -> list[Result]:
    if not found():
        return []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        now = int(time.time() * 1000)
        made = catalogue(folder)
        stack.enter_context(on_core(1))
        process, url, _, _ = stack.enter_context(filled(folder, made, now))
        asked = {
            size: lists(made, folder / f"{size}.txt", candidates=size, users=users.USERS, timestamp=now)
            for size in CANDIDATES
        }
        bare = {size: stack.enter_context(bare_asgi(length(url, asked[size]))) for size in CANDIDATES}
        rates: dict[tuple[int, int], tuple[float, float]] = {}
        print(
            f"\n{'candidates':>10} {'connections':>11} {'requests/s':>10} {'bare':>8} {'ratio':>6}  p50 ms  p99 ms"
        )
        for size in CANDIDATES:
            for connections in CONNECTIONS:
                ours, theirs = in_turns(url, bare[size], asked[size], connections)
                rate = statistics.median(each.rate for each in ours)
                against = statistics.median(each.rate for each in theirs)
                rates[size, connections] = rate, against
                p50, p99 = (
                    statistics.median(getattr(each, name) for each in ours) for name in ("p50", "p99")
                )
                print(
                    f"{size:10,} {connections:11} {rate:10,.0f} {against:8,.0f} {rate / against:6.2f}"
                    f" {p50:7.2f} {p99:7.2f}",
                    flush=True,
                )
        rate, against = rates[200, RATIO_AT]
        half = at_rate(url, asked[200], rate / 2, connections=RATIO_AT, seconds=HALF_LOAD_SECONDS)
        assert not half.errors
        only_ranked(url)
        print(under_load(process, url, asked[200]), flush=True)
        memory = resident(process)
    others = ", ".join(f"{rates[200, each][0] / rates[200, each][1]:.2f} at {each}" for each in CONNECTIONS)
    return [
        compared(
            "sidecar_vs_bare_asgi",
            rate,
            "requests/s",
            "bare ASGI",
            against,
            note=f"200 candidates on {RATIO_AT} connections ({others}), {users.USERS:,} users, {memory:,.0f} MB",
        ),
        Result(
            name="rank_p99_half_load",
            value=half.p99,
            unit="ms",
            note=f"at {half.rate:,.0f} of {rate:,.0f} requests/s; p50 {half.p50:.2f}, longest {half.most:.1f} ms",
        ),
    ]


@contextmanager
def filled(folder: Path, made: Catalogue, now: int) -> Iterator[tuple[Process, str, Client, Topics]]:
    """A sidecar on a core of its own whose store has the users; its process, its address, and the broker's topics."""
    home = os.environ.get("KAFKA_HOME")
    with broker.run(Path(home) if home else None) as running:
        client: Client = {"bootstrap.servers": running.bootstrap}
        names = Topics("bench-")
        topics.ensure(client, names, partitions=PARTITIONS, retention_ms=-1)
        patterns = users.patterns(made, now)
        users.fill(folder / "state" / "serve", client, names, patterns, users.USERS, now, made.bundle.name)
        flags = ["--bootstrap", running.bootstrap, "--topic-prefix", names.prefix, "--port", "0"]
        flags += ["--bundle", str(made.folder), "--state", str(folder / "state")]
        with ExitStack() as stack:
            with on_core(0):
                serving = insession("serve", *flags, ready="serving on ", log=folder / "serve.log")
                process = stack.enter_context(serving)
            url = process.line.removeprefix("serving on ")
            sidecar = Sidecar(url)
            sidecar.wait_until_ready()
            sidecar.close()
            remembered(url, users.USERS)
            yield process, url, client, names


@contextmanager
def bare_asgi(length: int) -> Iterator[str]:
    """The bare application on the core of the sidecar; its address."""
    with on_core(0):
        bare = subprocess.Popen([sys.executable, str(BARE), str(length)], stdout=subprocess.PIPE)
    try:
        assert bare.stdout is not None
        yield bare.stdout.readline().decode().strip()
    finally:
        end(bare)


def remembered(url: str, users: int) -> None:
    """Waits until the sidecar has all users in memory, or as many as there is room for."""
    before, found = -1.0, 0.0
    with Progress("in memory", users, "users") as progress:
        while before < found < users or not found:
            time.sleep(2)
            with urllib.request.urlopen(f"{url}/metrics") as answer:
                told = re.search(r"^insession_users_in_memory (\S+)", answer.read().decode(), re.M)
            assert told is not None
            before, found = found, float(told[1])
            progress.update(round(found))


def length(url: str, asked: Lists) -> int:
    """How long the sidecar's answers are, which are all of rankings, in bytes."""
    lengths = []
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    with asked.path.open("rb") as file:
        for number, line in zip(range(50), file, strict=False):
            name = users.user_id(number * 7919 % asked.users)
            connection.request("POST", "/v1/rank", b'{"user_id":"' + name.encode() + b'",' + line.rstrip())
            body = connection.getresponse().read()
            assert msgspec.json.decode(body, type=RankResponse).outcome == "ranked", body
            lengths.append(len(body))
    connection.close()
    return round(statistics.mean(lengths))


def in_turns(ours: str, theirs: str, asked: Lists, connections: int) -> tuple[list[Load], list[Load]]:
    """Rounds of both, after a warm one."""
    rounds: dict[str, list[Load]] = {ours: [], theirs: []}
    for url in rounds:
        load(url, asked, connections=connections, seconds=1)
    for _ in range(ROUNDS):
        for url, loads in rounds.items():
            loads.append(load(url, asked, connections=connections, seconds=SECONDS))
            assert not loads[-1].errors, loads[-1]
    return rounds[ours], rounds[theirs]


def only_ranked(url: str) -> None:
    """Whatever was asked until now was ranked: an answer in the caller's order would be a fast one."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        text = answer.read().decode()
    counted = dict(
        re.findall(r'^insession_request_seconds_count{outcome="(.+)",route="rank"} (\S+)', text, re.M)
    )
    others = sum(float(count) for outcome, count in counted.items() if outcome != "ranked")
    assert others <= float(counted["ranked"]) / 1_000, counted


def under_load(process: Process, url: str, asked: Lists) -> str:
    """Where the time goes."""
    FLAMES.parent.mkdir(exist_ok=True)
    pressing = threading.Thread(
        target=load, args=(url, asked), kwargs={"connections": 4, "seconds": 2 * spent.SECONDS + 3}
    )
    pressing.start()
    try:
        return spent.table(process.popen.pid, FLAMES)
    finally:
        pressing.join()


def resident(process: Process) -> float:
    """What the process has in memory now, MB."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024
