"""`insession evaluate similar`: whether listings that a bundle puts near each other are alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from insession import outcome as outcome_
from insession import pages
from insession.compared import bundle_option, loaded, seed_option
from insession.outcome import Outcome
from insession.progress import Progress
from models.evaluation import similar


@click.command("similar")
@bundle_option()
@click.option(
    "--neighbours",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="How many of each listing's nearest are looked at.",
)
@seed_option
@outcome_.options
def command(bundle_paths: tuple[Path, ...], neighbours: int, seed: int, outcome: Outcome) -> None:
    """Look whether a listing's nearest listings share its market, its type and its price range.

    Beside each share stands what it would be by chance. Some listings are taken for cold ones, and given the vector of
    their neighbours, as new listings are.

    \b
    Example:
      insession import marketplace --visits 300 --out sim.jsonl.zst
      insession train sim.jsonl.zst --listings sim.listings.jsonl --out bundles
      insession evaluate similar --bundle bundles
    """
    bundles = loaded(bundle_paths)
    results = []
    for name, made in bundles.items():
        with Progress(f"comparing listings of {name}", unit="listings") as progress:
            found = similar.report(made, neighbours, np.random.default_rng(seed), progress.update)
        results.append({"name": name} | found)
    report = {"seed": seed, "results": results}
    outcome.tell(
        "similar",
        report,
        table=lambda: table(report),
        page=lambda: pages.similar(report, bundles),
        parameters={"neighbours": neighbours, "seed": seed},
        bundles=bundles,
        rows=[{key: value for key, value in row.items() if key not in ("k", "cosines")} for row in results],
    )


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = []
    for result in report["results"]:
        lines.append(
            f"{result['name']}: the {result['k']} nearest of {result['n']:,} listings,"
            f" {result['with_vector']:,} of {result['listings']:,} with a vector; seed {report['seed']}"
        )
        lines += _shares("share", result["shares"])
        cold = result["cold"]
        lines.append(
            f"  cold listings: {cold['reached']:,} of {cold['without_vector']:,} have neighbours to take a vector of;"
            f" of {cold['held_out']:,} held out {cold['held_out_reached']:,}"
        )
        if cold["cosine"] is not None:
            low, high = cold["ci"]
            lines.append(
                f"    cosine with their own vector {cold['cosine']:.3f} [{low:.3f}, {high:.3f}], by chance {cold['chance']:.3f}"
            )
        lines += _shares("cold", cold["shares"])
        for name, rows in result["cosines"].items():
            lines += _cosines(name, rows)
    return "\n".join(lines)


def _shares(title: str, shares: dict[str, Any]) -> list[str]:
    return [
        f"  {title:6} same {name.replace('_', ' '):12} {share['share']:.3f}  [{share['ci'][0]:.3f}, {share['ci'][1]:.3f}]"
        f"  by chance {share['chance']:.3f}  ({share['n']:,} listings)"
        for name, share in shares.items()
    ]


def _cosines(title: str, rows: dict[str, dict[str, float]]) -> list[str]:
    names = list(rows)
    width = max(map(len, names), default=0) + 2
    head = "".join(f"{name:>{max(width, 8)}}" for name in names)
    lines = [f"  mean cosine by {title.replace('_', ' ')}, within a market", f"    {'':{width}}{head}"]
    for one, cells in rows.items():
        shown = "".join(
            f"{cells[other]:>{max(width, 8)}.3f}" if other in cells else " " * max(width, 8)
            for other in names
        )
        lines.append(f"    {one:{width}}{shown}")
    return lines
