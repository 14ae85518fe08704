"""`insession evaluate next-click`: which listing is clicked next, by a bundle and by everything simple."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from insession import outcome as outcome_
from insession import pages
from insession.compared import bundle_option, learned_later, loaded, seed_option
from insession.outcome import Outcome
from insession.pages import OWN
from insession.progress import Progress, Stages
from insession.times import Time, text
from models.bundle import Bundle
from models.datasets import formats
from models.errors import UserError
from models.evaluation import cold, next_click, positions, tuning, visits
from models.evaluation.methods import BASELINES
from models.evaluation.next_click import Recommended
from models.evaluation.visits import Visits

FILE = "A recording, or a file that `insession import` takes, told by its content; may be repeated."


@click.command("next-click")
@click.option(
    "--train", "train_files", multiple=True, required=True, metavar="FILE", help=f"Learn from it: {FILE}"
)
@click.option(
    "--test", "test_files", multiple=True, required=True, metavar="FILE", help=f"Measure on it: {FILE}"
)
@bundle_option(required=False)
@click.option(
    "--split",
    type=Time(),
    help="Learn only from clicks before, and measure only on visits that begin then or later: an ISO date or time (UTC), or milliseconds.",
)
@click.option(
    "--limit", type=click.IntRange(1), help="Measure only on the first so many visits of two clicks or more."
)
@click.option("--only", multiple=True, metavar="NAME", help="Only this row of the table; may be repeated.")
@seed_option
@outcome_.options
def command(
    train_files: tuple[str, ...],
    test_files: tuple[str, ...],
    bundle_paths: tuple[Path, ...],
    split: int | None,
    limit: int | None,
    only: tuple[str, ...],
    seed: int,
    outcome: Outcome,
) -> None:
    """Ask which listing is clicked next, at every click of every visit, and compare with everything simple.

    What needs training is trained on --train alone, and every baseline's settings are chosen on its last part. The row
    `insession` has the vectors and the encoder that `insession train` learns by default, of all of it. Visits are the data's own sessions where it names
    them, and end after 30 silent minutes where not. Asked are all clicks behind a visit's first whose listing occurs in
    the training; known is what was clicked before in the visit. The intervals are 95 % bootstrap intervals over visits.

    \b
    Example:
      insession import marketplace --visits 300 --out sim.jsonl.zst
      insession evaluate next-click --train sim.jsonl.zst --test sim.jsonl.zst --split 2024-12-30T03:00
    """
    bundles = loaded(bundle_paths, [*BASELINES, OWN])
    measured: dict[str, Bundle] = {}
    names = [*BASELINES, OWN, *bundles]
    for name in only:
        if name not in names:
            raise click.UsageError(f"--only {name}: the rows are {', '.join(names)}")
    wanted = [name for name in names if not only or name in only]
    train = _read(train_files, "--train")
    if split is not None:
        train = train.before(split)
        if not len(train):
            raise UserError(f"--train: no clicks in it before {text(split)}")
    test = _asked(_read(test_files, "--test"), split, limit)
    asked = positions.positions(test, train)
    if not len(asked):
        raise UserError("--test: no visit clicks a listing of the training behind its first click")
    validation = tuning.part(train, np.random.default_rng([seed, 0]))
    warnings = _overlaps(train, test)
    rows: list[Recommended] = []
    stages = Stages()
    progress = stages.update
    try:
        for name in wanted:
            if name in BASELINES:
                rows.append(next_click.baseline(name, train, asked, validation, time.perf_counter, progress))
                continue
            started = time.perf_counter()
            if name == OWN:
                try:
                    made = _trained(train_files, split, seed, progress)
                except UserError as error:
                    if wanted == [OWN]:
                        raise
                    warnings.append(f"no row {OWN}: {error}")
                    continue
            else:
                made = bundles[name]
                warnings += learned_later(name, made, test.times[test.starts[:-1]].tolist(), "test visits")
            measured[name] = made
            fit = time.perf_counter() - started
            repeats = next_click.repeats(rows, validation)
            row = next_click.bundle(name, made, train, asked, repeats, time.perf_counter, progress)
            rows.append(replace(row, seconds=fit + row.seconds))
        progress("comparing", 0, 0)
        report = next_click.report(rows, train, asked, seed)
        for result in report["results"]:
            if result["name"] in measured:
                random = np.random.default_rng([seed, 3])
                result["cold"] = cold.report(measured[result["name"]], train, test, random)
    finally:
        stages.close()
    report |= {
        "seed": seed,
        "train": _facts(train),
        "test": _facts(test),
        "validation": len(validation.later) if validation is not None else 0,
        "warnings": warnings,
    }
    outcome.tell(
        "next-click",
        report,
        table=lambda: table(report),
        page=lambda: pages.next_click(report, measured),
        parameters={
            "train": _names(train_files),
            "test": _names(test_files),
            "split": text(split) if split is not None else None,
            "limit": limit,
            "only": ", ".join(only) or None,
            "seed": seed,
        },
        bundles=measured,
        warnings=warnings,
        rows=[{key: value for key, value in row.items() if key != "settings"} for row in report["results"]],
    )


def _names(files: Sequence[str]) -> str:
    return ", ".join(Path(file).name for file in files)


def _read(files: Sequence[str], flag: str) -> Visits:
    for at, file in enumerate(files):
        if file in files[:at]:
            raise UserError(f"{flag} {file} is given twice")
    with Progress(f"reading {flag}", unit="events") as progress:
        found = visits.gather(formats.entries(files), progress.update)
    if not len(found.items):
        raise UserError(f"{flag}: {', '.join(files)}: no clicks in it")
    return found


def _asked(test: Visits, split: int | None, limit: int | None) -> Visits:
    """The visits to measure on: of two clicks or more, begun since the split, the first so many."""
    long = np.diff(test.starts) > 1
    if split is not None:
        long &= test.times[test.starts[:-1]] >= split
    if not long.any():
        since = f" that begins at {text(split)} or later" if split is not None else ""
        raise UserError(f"--test: no visit of two clicks or more{since}")
    return test.chosen(np.flatnonzero(long)[:limit])


def _trained(files: Sequence[str], split: int | None, seed: int, progress: next_click.Progress) -> Bundle:
    from models.training import from_files

    return from_files.train(
        files,
        until=split,
        seed=seed,
        on_progress=lambda title, done, total, note: progress(f"{OWN}: {title}", done, total),
    )


def _overlaps(train: Visits, test: Visits) -> list[str]:
    begun = int((test.times[test.starts[:-1]] <= train.last).sum())
    if not begun:
        return []
    return [
        f"{begun:,} of the {len(test):,} test visits begin before the training ends ({text(train.last)}):"
        " what is learned is not all of their past"
    ]


def _facts(of: Visits) -> dict[str, int]:
    return {
        "clicks": len(of.items),
        "visits": len(of),
        "listings": len(of.listings),
        "first": of.first,
        "last": of.last,
    }


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    width = max(len(result["name"]) for result in report["results"])
    lines = [
        f"{'':{width}}  HR@20  95 % interval   against the best other baseline      MRR@20  95 % interval"
        "   against the best other baseline      NDCG@20  coverage  popularity  seconds"
    ]
    for result in report["results"]:
        cells = [f"{result['name']:{width}}"]
        for metric in ("hit_rate@20", "mrr@20"):
            low, high = result["ci"][metric]
            cells.append(
                f"{result[metric]:5.3f}  [{low:.3f}, {high:.3f}]  {_against(result['versus'].get(metric)):35}"
            )
        cells.append(f"{result['ndcg@20']:7.3f}")
        cells.append(f"{result['coverage@20']:8.3f}")
        cells.append(f"{result['popularity_bias@20']:10.3f}")
        cells.append(f"{result['seconds']:7.1f}")
        lines.append("  ".join(cells))
    lines += [_cold(result) for result in report["results"] if result.get("cold", {}).get("clicks")]
    train, test = report["train"], report["test"]
    lines.append(
        f"n = {report['n']:,} targets in {report['visits']:,} visits; trained on {train['clicks']:,} clicks in {train['visits']:,}"
        f" visits of {train['listings']:,} listings, tested on {test['visits']:,} visits; settings chosen on"
        f" {report['validation']:,} targets of the training; seed {report['seed']}"
    )
    return "\n".join(lines)


def _cold(result: dict[str, Any]) -> str:
    """How the listings do that nobody had clicked."""
    cold, name = result["cold"], result["name"]
    has = f"{name}: {cold['n']:,} of {cold['clicks']:,} clicks on listings without a click in the training are on such as have a vector"
    if not cold["n"]:
        return has
    found = [
        f"{title} {cold[metric]:.3f} [{cold['ci'][metric][0]:.3f}, {cold['ci'][metric][1]:.3f}], by chance {cold['chance'][metric]:.3f}"
        for title, metric in (("HR@20", "hit_rate@20"), ("MRR@20", "mrr@20"))
    ]
    return f"{has}; among these {cold['listings']:,}: {'; '.join(found)}"


def _against(versus: dict[str, Any] | None) -> str:
    if versus is None:
        return ""
    return f"{versus['difference']:+.3f} {versus['baseline']} (p {versus['p']:.4f})"
