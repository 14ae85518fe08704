"""`insession evaluate booked-rank`: how early a bundle puts the listing on top that is booked in the end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from insession.compared import learned_later, named
from insession.progress import Progress
from insession.times import Time, text
from models import bundle as bundle_
from models.datasets import told
from models.errors import UserError
from models.evaluation import booked_rank


@click.command("booked-rank")
@click.argument("recording")
@click.option(
    "--bundle",
    "bundle_paths",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="A bundle, or a folder of bundles whose `current` is taken; may be repeated.",
)
@click.option(
    "--from",
    "since",
    type=Time(),
    help="Look only at bookings from then on: an ISO date or time (UTC), or milliseconds.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the intervals and tests."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    recording: str, bundle_paths: tuple[Path, ...], since: int | None, seed: int, as_json: bool
) -> None:
    """Look where the listing that is booked in the end stands, 17 clicks before the booking to 1, as shown and by each bundle.

    At each click the visit's candidates are ordered by how near they are to the clicked listing. A lower rank is better.

    \b
    Example:
      insession import marketplace --visits 1000 --out sim.jsonl.zst
      insession train sim.jsonl.zst --until 2024-12-30T06:00 --out bundles
      insession evaluate booked-rank sim.jsonl.zst --bundle bundles --from 2024-12-30T06:00
    """
    bundles = {name: bundle_.load(path) for name, path in named(bundle_paths, [booked_rank.SHOWN]).items()}
    with Progress(f"reading {Path(recording).name}", unit="events") as progress:
        events = (event for event, _ in told.entries([recording]))
        found = booked_rank.bookings(events, since=since or 0, on_progress=progress.update)
    if not found:
        when = f" from {text(since)}" if since is not None else ""
        raise UserError(
            f"{recording}: no booking of a listing shown in its visit, after a click on another one{when}"
        )
    with Progress("ranking candidates", len(found), "bookings") as progress:
        report = booked_rank.report(found, bundles, seed, progress.update)
    times = [booked.time for booked in found]
    warnings = [
        warning for name, made in bundles.items() for warning in learned_later(name, made, times, "bookings")
    ]
    report |= {"seed": seed, "warnings": warnings}
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    click.echo(msgspec.json.encode(report) if as_json else table(report))


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    results = report["results"]
    width = max(8, *(len(result["name"]) for result in results)) + 2
    lines = [f"{'clicks before':13}{'n':>7}" + "".join(f"{result['name']:>{width}}" for result in results)]
    for points in zip(*(result["curve"] for result in results), strict=True):
        first = points[0]
        ranks = "".join(f"{point['mean_rank']:>{width}.2f}" for point in points)
        lines.append(f"{first['clicks_before']:>13}{first['n']:>7,}{ranks}")
    lines.append("mean rank, 95 % interval over visits, and against the list as shown:")
    for result in results:
        low, high = result["ci"]
        line = f"  {result['name']:{width}}{result['mean_rank']:6.2f}  [{low:.2f}, {high:.2f}]"
        if versus := result.get("versus"):
            line += f"  {versus['difference']:+.2f} (p {versus['p']:.4f})"
        lines.append(line)
    lines.append(
        f"n = {report['n']:,} bookings with {report['clicks']:,} clicks before them, among {report['candidates']:.1f}"
        f" candidates on average; seed {report['seed']}"
    )
    return "\n".join(lines)
