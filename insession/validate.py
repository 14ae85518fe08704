"""`insession validate`: whether a recording can be trusted, before anything is learned from it."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from insession.progress import Progress
from models.datasets.checks import Check
from models.datasets.validation import validate

MARKS = {"pass": "ok   ", "warn": "warn ", "fail": "FAIL ", "skip": "-    "}


@click.command("validate")
@click.argument("recording", type=click.Path(path_type=Path))
@click.option(
    "--listings",
    type=click.Path(path_type=Path),
    help="The listings, to see whether it is these that are acted on: parquet, CSV, JSON lines, or a recording of the topic.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(recording: Path, listings: Path | None, as_json: bool) -> None:
    """Check whether RECORDING holds what can be learned from, and say what to do where it does not.

    Needs no broker. Exits with 1 where a check fails; a warning is no failure.

    \b
    Example:
      insession import marketplace --visits 300 --out sim.jsonl.zst
      insession validate sim.jsonl.zst --listings sim.listings.jsonl
    """
    catalogue = None
    if listings is not None:
        from models.training.listing_files import read_listings

        catalogue = read_listings(listings)
    with Progress(f"reading {recording.name}", unit="records") as progress:
        records, checks = validate(recording, catalogue, progress.update)
    failed = [check.what for check in checks if check.status == "fail"]
    if as_json:
        report = {"recording": str(recording), "records": records, "failed": failed, "checks": checks}
        click.echo(msgspec.json.encode(report))
    else:
        click.echo(text(recording, records, checks))
    if failed:
        sys.exit(1)


def text(recording: Path, records: int, checks: list[Check]) -> str:
    """The checks for people."""
    lines = [f"{recording}: {records:,} records"]
    for check in checks:
        lines.append(f"{MARKS[check.status]} {check.what}: {check.found}")
        if check.todo:
            lines.append(f"      {check.todo}")
    count = {status: sum(check.status == status for check in checks) for status in MARKS}
    lines.append(
        f"{count['pass']} pass, {count['warn']} warn, {count['fail']} fail, {count['skip']} had nothing to look at"
    )
    return "\n".join(lines)
