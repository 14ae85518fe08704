"""`insession evaluate`: what a bundle is worth on a recording."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from insession import booked_rank, next_click, pages, similar
from insession import outcome as outcome_
from insession.broker import kafka_home
from insession.compared import bundle_option, since_option
from insession.online import Difference, compare
from insession.outcome import Outcome
from insession.progress import Progress
from insession.settings import load
from insession.times import Time, text
from models import bundle as bundle_
from models.errors import UserError
from models.evaluation import counters
from models.evaluation import rerank as rerank_
from models.evaluation.rerank import Choice, Scored

MOST = 20_000
"""Searches that `counters` learns from, the newest ones."""
SEED = 1
"""Of the bootstrap: the same recording and bundle give the same table."""


@click.group("evaluate")
def command() -> None:
    """Measure a bundle on recorded behaviour.

    \b
    Example:
      insession import marketplace --visits 300 --out sim.jsonl.zst
      insession train sim.jsonl.zst --until 2024-12-30T03:00 --out bundles
      insession evaluate rerank sim.jsonl.zst --bundle bundles --from 2024-12-30T03:00
    """


command.add_command(next_click.command)
command.add_command(similar.command)
command.add_command(booked_rank.command)


@command.command("rerank")
@click.argument("recording", type=click.Path(path_type=Path))
@bundle_option(several=False)
@since_option("searches")
@click.option("--until", type=Time(), help="Take the recording only up to this time.")
@click.option(
    "--online",
    is_flag=True,
    help="Also play the recording through a broker, a worker and a sidecar that really run, and compare each ranking.",
)
@click.option(
    "--bootstrap",
    help="With --online: a Kafka that runs (host:port), where topics of their own are made and deleted.  [default: a broker is started]",
)
@kafka_home
@outcome_.options
def rerank(
    recording: Path,
    bundle_path: Path,
    since: int | None,
    until: int | None,
    online: bool,
    bootstrap: str | None,
    kafka_home: Path | None,
    outcome: Outcome,
) -> None:
    """Rank every recorded search whose choice is known with only what came before it, and compare.

    The choice is the first of the search's results that was clicked or booked. `shown` is the list as the visitor saw
    it, `seen-first` puts what was acted on in the open session on top, `counters` is a LambdaMART on counters of the
    visit, place and price, learned from the searches before --from, and `insession` is the bundle's ranking.
    Targets are `seen` where the chosen listing was acted on in the open session before the search. Ranks count from 1;
    the intervals are 95 % bootstrap intervals over users. With --online it exits with 1 where a ranking differs.

    \b
    Example:
      insession import marketplace --visits 300 --out sim.jsonl.zst
      insession train sim.jsonl.zst --until 2024-12-30T03:00 --out bundles
      insession evaluate rerank sim.jsonl.zst --bundle bundles --from 2024-12-30T03:00
    """
    if (bootstrap or kafka_home) and not online:
        raise click.UsageError("--bootstrap and --kafka-home go with --online")
    if bootstrap and kafka_home:
        raise click.UsageError(
            "--bootstrap names a broker that runs, --kafka-home one to start: give one of them"
        )
    load(bootstrap=bootstrap)
    bundle = bundle_.load(bundle_path)
    with Progress(f"ranking {recording.name}", unit="records") as progress:
        earlier, later = _parted(
            rerank_.choices(recording, bundle, until=until, on_progress=progress.update), since or 0
        )
    if not later:
        raise UserError(f"{recording}: no search whose choice is known{_span(since, until)}")
    learned = _counters(earlier) if since is not None else None
    scored = [rerank_.rerank(choice, bundle, learned) for choice in later]
    report = rerank_.report(scored, np.random.default_rng(SEED))
    differences: list[Difference] = []
    if online:
        with Progress("asking a sidecar", len(scored), "searches") as progress:
            differences = compare(
                recording,
                bundle_path,
                scored,
                until=until,
                bootstrap=bootstrap,
                kafka_home=kafka_home,
                on_progress=progress.update,
            )
        report["online"] = {"n": len(scored), "differences": differences}
    warning = in_training(scored, bundle)
    says = f"{len(scored):,} searches of {recording.name} whose choice is known{_span(since, until)}, each ranked with only"
    says += " what came before it. Intervals are 95 % bootstrap intervals over users."
    warnings = [warning] if warning else []
    outcome.tell(
        "rerank",
        report,
        table=lambda: "\n".join(
            [
                table(report, scored),
                *(f"NOT HELD OUT: {warning}" for warning in warnings),
                *(_online(len(scored), differences) if online else []),
            ]
        ),
        page=lambda: pages.rerank(report, bundle, says, warnings),
        parameters={
            "recording": recording.name,
            "from": text(since) if since is not None else None,
            "until": text(until) if until is not None else None,
            "seed": SEED,
        },
        bundles={pages.OWN: bundle},
        warnings=warnings,
    )
    if differences:
        sys.exit(1)


def _online(searches: int, differences: list[Difference]) -> list[str]:
    equal = searches - len(differences)
    lines = [f"online: {equal:,} of {searches:,} rankings by a running sidecar equal these"]
    first = differences[:1]
    return lines + [f"the first that differs: {msgspec.json.encode(one).decode()}" for one in first]


def _parted(choices: Iterable[Choice], since: int) -> tuple[list[tuple[counters.Floats, int]], list[Choice]]:
    """What `counters` may learn from, the newest of what is earlier, and the choices to score."""
    earlier: deque[tuple[counters.Floats, int]] = deque(maxlen=MOST)
    later = []
    for choice in choices:
        if choice.search.timestamp >= since:
            later.append(choice)
        else:
            earlier.append((counters.features(choice), choice.chosen))
    return list(earlier), later


def _counters(earlier: list[tuple[counters.Floats, int]]) -> counters.Counters | None:
    """The baseline that learns from the searches before --from, where there are enough."""
    try:
        learned = counters.train([values for values, _ in earlier], [chosen for _, chosen in earlier], SEED)
    except UserError as error:
        print(f"left out: {error}", file=sys.stderr)
        return None
    if learned is None:
        few = f"{len(earlier):,} searches before --from, of {counters.FEWEST} that it needs"
        print(f"left out: the baseline `counters`: {few}", file=sys.stderr)
    return learned


def in_training(scored: list[Scored], bundle: bundle_.Bundle) -> str:
    """What to say where the bundle was trained on searches that it is measured on; empty where it was not."""
    until = bundle.manifest.training.trained_until
    inside = sum(until is not None and one.choice.search.timestamp <= until for one in scored)
    if until is None or not inside:
        return ""
    return (
        f"{inside:,} of the {len(scored):,} searches are from the time this bundle was trained on"
        f" (until {text(until)}); hold out with --until at training and --from here"
    )


def table(report: dict[str, Any], scored: list[Scored]) -> str:
    """The report for people."""
    lines = [
        f"{'':12}{'targets':9}{'n':>7}   {'MRR':6} {'95 % interval':17} {'mean rank':10} {'95 % interval':15} MRR against the best other simple one"
    ]
    for row in report["results"]:
        head = f"{row['name']:12}{row['targets']:9}{row['n']:>7,}"
        if not row["n"]:
            lines.append(f"{head}   -")
            continue
        (low, high), (low_rank, high_rank) = row["mrr_ci"], row["mean_rank_ci"]
        lines.append(
            f"{head}   {row['mrr']:.3f}  [{low:.3f}, {high:.3f}]    {row['mean_rank']:<10.2f} [{low_rank:.2f}, {high_rank:.2f}]"
            f"{'':4}{row['versus']['difference']:+.3f} {row['versus']['baseline']} (p {row['versus']['p']:.4f})"
        )
    ranked = sum(one.outcome == "ranked" for one in scored)
    lines.append(
        f"{ranked:,} of {len(scored):,} searches were of visitors of whom something is known, and re-ranked; the rest keep the caller's order"
    )
    return "\n".join(lines)


def _span(since: int | None, until: int | None) -> str:
    return (f" from {text(since)}" if since is not None else "") + (
        f" until {text(until)}" if until is not None else ""
    )
