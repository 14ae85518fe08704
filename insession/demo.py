"""`insession demo`: a simulated marketplace, from nothing to a page where a click changes the next ranking."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import msgspec
import numpy as np
from confluent_kafka import KafkaError, Message, Producer

from insession.broker import kafka_home
from insession.import_ import listings_beside
from insession.processes import COMMAND
from insession.progress import Progress
from insession.running import running
from insession.sidecar import Sidecar
from models.errors import UserError
from models.events import Event, Ranking, Result, Search, encode
from models.rank import Candidate
from models.topics import Topics
from serving.api import RankRequest
from serving.server import listen
from streams import topics

TRAINING_VISITS = 12_000
VISITORS = 8
"""Visits that are played at once."""
DEADLINE_MS = 10_000
DESKTOP = ("DISPLAY", "WAYLAND_DISPLAY")


@dataclass(slots=True)
class Played:
    """What the headless run saw. Times in milliseconds; ranks count from 1."""

    visits: int = 0
    events: int = 0
    visible_ms: list[float] = field(default_factory=list)
    """From producing a visitor's event to the answer that includes it, for every search that had one before."""
    shown: list[int] = field(default_factory=list)
    """The rank of the listing that was booked in the end, in the search's own order,"""
    reranked: list[int] = field(default_factory=list)
    """and as the sidecar ranked it: for every search that showed it, the visit's first ones too."""
    outcomes: dict[str, int] = field(default_factory=dict)


@click.command("demo")
@click.option("--headless", is_flag=True, help="play the visits without a person, print a table and end")
@click.option(
    "--visits",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    help="how many simulated visits --headless plays",
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="of the marketplace")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="of the page; 0: a free one",
)
@kafka_home
@click.option("--json", "as_json", is_flag=True, help="with --headless, print JSON")
def command(
    headless: bool, visits: int, seed: int, port: int, kafka_home: Path | None, as_json: bool
) -> None:
    """Simulate a marketplace, train a bundle, start broker, worker and sidecar, and open a page. Ctrl-C ends it all.

    With --headless the visits of other simulated visitors go through the topics at once, and before each search the
    sidecar is asked to re-rank the search's own order.

    \b
    Example:
      insession demo --headless
    """
    if as_json and not headless:
        raise click.UsageError("--json goes with --headless")
    # A shell that starts this in the background has told it to ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if not headless:
            listen("127.0.0.1", port).close()  # Said before the minute of work, not after it.
        with _trained(seed) as bundles:
            _say("starting broker, worker and sidecar")
            with running(bundles, kafka_home=kafka_home, port=0 if headless else port, page=not headless) as (
                client,
                names,
                sidecar,
            ):
                if headless:
                    with Progress("playing visits", visits, "visits") as progress:
                        played = play(client, names, sidecar.url, visits, seed, progress)
                    _report(played, "Apache Kafka" if kafka_home else "embedded", as_json)
                else:
                    _show(sidecar.url)
    except KeyboardInterrupt:
        if headless:
            raise
        click.echo("\nended", err=True)


@contextmanager
def _trained(seed: int) -> Iterator[Path]:
    """A folder of bundles with one that was trained on a simulated marketplace."""
    with TemporaryDirectory(prefix="insession-demo-") as folder:
        recording, bundles = Path(folder) / "marketplace.jsonl.zst", Path(folder) / "bundles"
        _say("simulating a marketplace and training on it")
        _insession("import", "marketplace", "--visits", TRAINING_VISITS, "--seed", seed, "--out", recording)
        listings = listings_beside(recording)
        _insession("train", recording, "--listings", listings, "--seed", seed, "--out", bundles)
        yield bundles


def _show(url: str) -> None:
    """Say where the page is, and wait for Ctrl-C."""
    click.echo(f"\nThe page is at {url}\nCtrl-C ends broker, worker and sidecar.")
    if any(os.environ.get(name) for name in DESKTOP):
        webbrowser.open(url)
    threading.Event().wait()


def _insession(*arguments: object) -> None:
    """Run a command as a user would; what it says goes to stderr."""
    command = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise UserError(f"`insession {arguments[0]}` failed with code {done.returncode}")


def _say(text: str) -> None:
    click.echo(text, err=True)


def play(
    client: topics.Client, names: Topics, url: str, visits: int, seed: int, progress: Progress
) -> Played:
    """Play visits that nothing was trained on, some at once, each as fast as its rankings come."""
    from models.datasets.marketplace import Marketplace

    # Another stream has other visitors in the same marketplace.
    scripts = Marketplace(seed).visits(visits, stream=1)
    played, lock = Played(), threading.Lock()
    producer = Producer({**client, "linger.ms": 0, "enable.idempotence": True, "log_level": 0})
    ending = threading.Event()
    polling = threading.Thread(target=_poll, args=(producer, ending))
    polling.start()
    local = threading.local()

    def one(number: int, script: Any) -> None:
        if not hasattr(local, "sidecar"):
            local.sidecar = Sidecar(url)
        seen = _play_one(producer, names.clicks, local.sidecar, script, f"{script.user_id}-{number}")
        with lock:
            played.visits += 1
            played.events += seen.events
            played.visible_ms += seen.visible_ms
            played.shown += seen.shown
            played.reranked += seen.reranked
            for outcome, times in seen.outcomes.items():
                played.outcomes[outcome] = played.outcomes.get(outcome, 0) + times
            progress.update(played.visits)

    try:
        with ThreadPoolExecutor(VISITORS) as pool:
            for done in [pool.submit(one, number, script) for number, script in enumerate(scripts)]:
                done.result()
    finally:
        ending.set()
        polling.join()
    return played


def _poll(producer: Producer, ending: threading.Event) -> None:
    while not ending.is_set():
        producer.poll(0.01)
    producer.flush(5)


def _play_one(producer: Producer, topic: str, sidecar: Sidecar, script: Any, user: str) -> Played:
    """One visit as a visitor of its own: time stands between its events only as long as the rankings take."""
    seen = Played()
    time_ms = 0
    last: tuple[float, Future[tuple[int, int]]] | None = None
    for event in script.events:
        time_ms = max(int(time.time() * 1000), time_ms + 1)
        event = msgspec.structs.replace(event, user_id=user, timestamp=time_ms)
        if isinstance(event, Search):
            event = _ranked(sidecar, event, script.booked, last, seen)
        last = (time.perf_counter(), _produce(producer, topic, event))
        seen.events += 1
    return seen


def _ranked(
    sidecar: Sidecar,
    search: Search,
    booked: str | None,
    last: tuple[float, Future[tuple[int, int]]] | None,
    seen: Played,
) -> Search:
    """The search with its results in the order the sidecar gives them, asked once it knows the visitor's last event."""
    partition, offset = last[1].result() if last else (None, None)
    results = {result.listing_id: result for result in search.results}
    answer = sidecar.rank(
        RankRequest(
            user_id=search.user_id,
            candidates=tuple(Candidate(result.listing_id) for result in search.results),
            timestamp=search.timestamp,
            partition=partition,
            min_offset=offset,
            deadline_ms=DEADLINE_MS,
        )
    )
    if last:
        seen.visible_ms.append((time.perf_counter() - last[0]) * 1000)
    seen.outcomes[answer.outcome] = seen.outcomes.get(answer.outcome, 0) + 1
    for ranked in answer.results:
        if ranked.listing_id == booked and ranked.caller_position is not None:
            seen.shown.append(ranked.caller_position)
            seen.reranked.append(ranked.position)
    return msgspec.structs.replace(
        search,
        results=tuple(
            Result(
                listing_id=ranked.listing_id,
                position=ranked.position,
                caller_position=ranked.caller_position,
                price=results[ranked.listing_id].price,
            )
            for ranked in answer.results
        ),
        ranking=Ranking(
            rank_id=answer.rank_id,
            bundle=answer.bundle,
            variant=answer.variant,
            propensity=answer.propensity,
        ),
    )


def _produce(producer: Producer, topic: str, event: Event) -> Future[tuple[int, int]]:
    """Put an event on `clicks`; partition and offset, once the broker has it."""
    standing: Future[tuple[int, int]] = Future()

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            standing.set_exception(UserError(f"the broker refused an event: {error.str()}"))
        else:
            standing.set_result((message.partition() or 0, message.offset() or 0))

    key = getattr(event, "user_id", "").encode()
    producer.produce(topic, key=key, value=encode(event), on_delivery=on_delivery)
    return standing


def _report(played: Played, broker_name: str, as_json: bool) -> None:
    report = {
        "broker": broker_name,
        "visits": played.visits,
        "events": played.events,
        "searches": sum(played.outcomes.values()),
        "outcomes": dict(sorted(played.outcomes.items())),
        "click_to_visible_p50_ms": _quantile(played.visible_ms, 50),
        "click_to_visible_p99_ms": _quantile(played.visible_ms, 99),
        "booked_n": len(played.shown),
        "own_order": _ranks(played.shown),
        "reranked": _ranks(played.reranked),
    }
    if as_json:
        click.echo(msgspec.json.encode(report))
        return
    own, ours = report["own_order"], report["reranked"]
    click.echo(
        f"broker                       {broker_name}\n"
        f"events                       {played.events:,} of {played.visits:,} visits\n"
        f"click to visible, p50        {report['click_to_visible_p50_ms']:.1f} ms\n"
        f"click to visible, p99        {report['click_to_visible_p99_ms']:.1f} ms\n"
        f"the booked listing, in {len(played.shown):,} lists that showed it\n"
        f"                             mean rank   MRR\n"
        f"  the search's own order     {own['mean_rank']:9.2f}   {own['mrr']:.3f}\n"  # type: ignore[index]
        f"  re-ranked                  {ours['mean_rank']:9.2f}   {ours['mrr']:.3f}"  # type: ignore[index]
    )


def _quantile(values: Sequence[float], percent: float) -> float:
    return round(float(np.percentile(values, percent)), 2) if values else 0.0


def _ranks(ranks: Sequence[int]) -> dict[str, float]:
    if not ranks:
        return {"mean_rank": 0.0, "mrr": 0.0}
    of = np.array(ranks)
    return {"mean_rank": round(float(of.mean()), 3), "mrr": round(float((1 / of).mean()), 4)}
