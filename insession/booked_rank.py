"""`insession evaluate booked-rank`: how early a bundle puts the listing on top that is booked in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from insession import outcome as outcome_
from insession import pages
from insession.compared import bundle_option, learned_later, loaded, seed_option, since_option
from insession.outcome import Outcome
from insession.progress import Progress
from insession.times import text
from models.datasets import formats
from models.errors import UserError
from models.evaluation import booked_rank


@click.command("booked-rank")
@click.argument("recording")
@bundle_option()
@since_option("bookings")
@seed_option
@outcome_.options
def command(
    recording: str, bundle_paths: tuple[Path, ...], since: int | None, seed: int, outcome: Outcome
) -> None:
    """Look where the listing that is booked in the end stands, 17 clicks before the booking to 1, as shown and by each bundle.

    At each click the visit's candidates are ordered by how near they are to the clicked listing. A lower rank is better.

    \b
    Example:
      insession import marketplace --visits 1000 --out sim.jsonl.zst
      insession train sim.jsonl.zst --until 2024-12-30T06:00 --out bundles
      insession evaluate booked-rank sim.jsonl.zst --bundle bundles --from 2024-12-30T06:00
    """
    bundles = loaded(bundle_paths, [booked_rank.SHOWN])
    with Progress(f"reading {Path(recording).name}", unit="events") as progress:
        events = (event for event, _ in formats.entries([recording]))
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
    name = Path(recording).name
    outcome.tell(
        "booked-rank",
        report,
        table=lambda: table(report),
        page=lambda: pages.booked_rank(report, bundles, name, since),
        parameters={"recording": name, "from": text(since) if since is not None else None, "seed": seed},
        bundles=bundles,
        warnings=warnings,
        rows=[row | {"curve": _steps(row["curve"])} for row in report["results"]],
    )


def _steps(curve: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {at["clicks_before"]: {key: at[key] for key in ("n", "mean_rank", "ci")} for at in curve}


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
