"""`insession import`: a public data set, or a simulated marketplace, as a recording."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import click

from insession.progress import progress
from models.datasets import globo, importing, session_rec, trivago
from models.datasets.importing import Entry, Summary
from models.errors import UserError
from models.listings import Listing
from models.recording import Header, Writer

FORMATS = ("trivago", "session-rec", "globo", "marketplace")


@click.command()
@click.argument("format_", metavar="FORMAT", type=click.Choice(FORMATS))
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option("--out", required=True, metavar="RECORDING", help="Where to write the recording (.jsonl.zst).")
@click.option(
    "--partitions",
    default=4,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Partitions of its topic.",
)
@click.option("--metadata", metavar="FILE", help="trivago: the hotels' properties (item_id, properties).")
@click.option(
    "--listings-out",
    metavar="FILE",
    help="marketplace, trivago: where to write the listings.  [default: NAME.listings.jsonl beside the recording; for trivago only with --metadata]",
)
@click.option(
    "--visits",
    default=20_000,
    show_default=True,
    type=click.IntRange(1),
    help="marketplace: how many to simulate.",
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="marketplace: its seed.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    format_: str,
    files: tuple[str, ...],
    out: str,
    partitions: int,
    metadata: str | None,
    listings_out: str | None,
    visits: int,
    seed: int,
    as_json: bool,
) -> None:
    """Make one recording, in event-time order, of the FILEs of a data set.

    \b
    trivago      RecSys Challenge 2019: CSV, plain or gzip
    session-rec  SessionId, ItemId, Time (seconds), tab separated
    globo        Globo.com clicks: parquet or CSV
    marketplace  a simulated marketplace; takes no FILE

    A member of a zip is named FILE.zip:MEMBER. A wrong file is refused with its line and column, and nothing is
    written. The listings file is what `insession train --listings` takes.

    \b
    Example:
      insession import marketplace --visits 2000 --seed 1 --out sim.jsonl.zst
    """
    _check(format_, files, metadata, listings_out)
    summary, written = Summary(), 0
    target = Path(out)
    catalogue = Path(listings_out) if listings_out else listings_beside(target)
    entries: Iterable[Entry]
    listings: Iterable[Listing] | None = None
    match format_:
        case "trivago":
            seen, properties = trivago.Seen(), trivago.properties(metadata) if metadata else {}
            entries = trivago.events(files, summary.skipped, seen)
            if metadata or listings_out:
                listings = trivago.listings(seen, properties)
        case "session-rec":
            entries = session_rec.events(files)
        case "globo":
            entries = globo.events(files)
        case _:
            from models.datasets.marketplace import Marketplace

            market = Marketplace(seed)
            entries = ((event, None) for event in market.events(visits))
            listings = market.listings
    try:
        with Writer(target, Header(topic="clicks", partitions=partitions, source=format_)) as writer:
            shown = progress(entries, f"import {format_}", unit="events")
            records = importing.records(shown, partitions, summary)
            ordered = format_ in ("globo", "marketplace")
            for record in records if ordered else importing.in_time_order(records, target.parent):
                writer.write(record)
            if not writer.records:
                raise UserError(f"{files[0]}: no events in it")
            if listings is not None:
                written = importing.write_listings(catalogue, listings)
    except OSError as error:
        raise UserError(f"{target}: {error.strerror or error}") from None
    report = {
        "format": format_,
        "recording": str(target),
        "records": writer.records,
        "partitions": partitions,
        "events": dict(sorted(summary.events.items())),
        "users": len(summary.users),
        "first": summary.first,
        "last": summary.last,
        "skipped": dict(sorted(summary.skipped.items())),
        "listings": {"file": str(catalogue), "number": written} if listings is not None else None,
    }
    print(json.dumps(report, indent=2) if as_json else _text(summary, target, writer.records, partitions))
    if listings is not None and not as_json:
        print(f"{catalogue}: {written:,} listings")


def listings_beside(recording: Path) -> Path:
    """Where the listings of a recording are written: `rio.jsonl.zst` has them in `rio.listings.jsonl`."""
    name = recording.name.removesuffix(".zst").removesuffix(".jsonl")
    return recording.with_name(f"{name}.listings.jsonl")


def _check(format_: str, files: tuple[str, ...], metadata: str | None, listings_out: str | None) -> None:
    if format_ == "marketplace" and files:
        raise UserError("import marketplace takes no FILE: it is simulated")
    if format_ != "marketplace" and not files:
        raise UserError(f"import {format_}: give at least one FILE")
    if metadata and format_ != "trivago":
        raise UserError(f"--metadata belongs to trivago, not to {format_}")
    if listings_out and format_ not in ("trivago", "marketplace"):
        raise UserError(f"--listings-out: {format_} says nothing of its listings")


def _text(summary: Summary, recording: Path, records: int, partitions: int) -> str:
    """The summary for a person."""
    first, last = (datetime.fromtimestamp((time or 0) / 1000, UTC) for time in (summary.first, summary.last))
    lines = [
        f"{recording}: {records:,} records on {partitions} partitions",
        f"  {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC, {len(summary.users):,} users",
        *(f"  {number:>12,} {kind}" for kind, number in summary.events.most_common()),
        *(f"  {number:>12,} left out: {reason}" for reason, number in summary.skipped.most_common()),
    ]
    return "\n".join(lines)
