"""`insession import`: a public data set, or a simulated marketplace, as a recording."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Hashable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from click.core import ParameterSource

from insession.progress import progress
from insession.times import Time
from models.datasets import (
    columns,
    diginetica,
    globo,
    importing,
    otto,
    retailrocket,
    session_rec,
    trivago,
    yoochoose,
)
from models.datasets.importing import Entry, Summary
from models.datasets.seen import Seen
from models.errors import UserError
from models.listings import Listing
from models.recording import Header, Writer

FORMATS = (
    *("trivago", "session-rec", "globo", "yoochoose", "diginetica", "retailrocket", "otto"),
    *("columns", "marketplace"),
)
BELONGS = {
    "metadata": ("trivago",),
    "listings_out": ("trivago", "yoochoose", "diginetica", "retailrocket", "columns", "marketplace"),
    "named": ("columns",),
    "meant": ("columns",),
    "unit": ("columns",),
    **dict.fromkeys(("visits", "seed", "size", "markets", "start", "days"), ("marketplace",)),
}
"""The formats of the options that are not for all."""
FLAGS = {"named": "--column", "meant": "--type", "unit": "--time", "size": "--listings"}
"""What options are called where it is not their name."""
WRITTEN = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("format_", metavar="FORMAT", type=click.Choice(FORMATS))
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option(
    "--out",
    required=True,
    metavar="RECORDING",
    type=WRITTEN,
    help="Where to write the recording (.jsonl.zst).",
)
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
    type=WRITTEN,
    help="Where to write the listings, of formats that tell of them.  [default: NAME.listings.jsonl beside the recording, where the FILEs tell; for trivago only with --metadata]. marketplace: a name that ends with .zst gets a recording of the topic `listings`, with when each comes and goes.",
)
@click.option(
    "--column",
    "named",
    metavar="FIELD=COLUMN",
    multiple=True,
    help=f"columns: which column has a field, of {', '.join(columns.FIELDS)} and {columns.ATTRIBUTE}NAME; the first three must be named.",
)
@click.option(
    "--type",
    "meant",
    metavar="VALUE=KIND",
    multiple=True,
    help=f"columns: what the column of `type` calls a {', '.join(columns.KINDS)}, or {columns.NONE} for rows to leave out.",
)
@click.option(
    "--time",
    "unit",
    type=click.Choice(columns.UNITS),
    help="columns: how times are written.  [default: as the first row of each FILE looks]",
)
@click.option(
    "--visits",
    default=20_000,
    show_default=True,
    type=click.IntRange(1, 9_999_999),
    help="marketplace: how many to simulate.",
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="marketplace: its seed.")
@click.option(
    "--listings",
    "size",
    default=1_500,
    show_default=True,
    type=click.IntRange(1, 200_000),
    help="marketplace: how many there are in all, at least 50 in a market.",
)
@click.option(
    "--markets",
    default=12,
    show_default=True,
    type=click.IntRange(1, 12),
    help="marketplace: how many cities.",
)
@click.option(
    "--start",
    type=Time(),
    default="2024-12-30",
    show_default=True,
    help="marketplace: when it begins: an ISO date or time (UTC), or milliseconds.",
)
@click.option(
    "--days",
    type=click.FloatRange(0.001, 3_650),
    help="marketplace: over how many days the visits are spread.  [default: 150 visits an hour]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    format_: str,
    files: tuple[str, ...],
    out: Path,
    partitions: int,
    metadata: str | None,
    listings_out: Path | None,
    named: tuple[str, ...],
    meant: tuple[str, ...],
    unit: columns.Unit | None,
    visits: int,
    seed: int,
    size: int,
    markets: int,
    start: int,
    days: float | None,
    as_json: bool,
) -> None:
    """Make one recording, in event-time order, of the FILEs of a data set.

    \b
    trivago       RecSys Challenge 2019
    session-rec   SessionId, ItemId, Time (seconds), tab separated
    globo         Globo.com clicks: parquet or CSV
    yoochoose     RecSys Challenge 2015: clicks and buys
    diginetica    CIKM Cup 2016: any of its tables
    retailrocket  events, item properties, category tree
    otto          JSON lines of sessions
    columns       any CSV or parquet, by --column
    marketplace   a simulated marketplace; takes no FILE

    FILEs may come in any order, and gzip compressed. A member of a zip is named FILE.zip:MEMBER. A wrong file is refused with its line and column, and nothing is
    written. The listings file is what `insession train --listings` takes.

    \b
    Example:
      insession import marketplace --visits 300 --seed 1 --out sim.jsonl.zst
    """
    _check(format_, files)
    if not all(path.name for path in (out, listings_out) if path is not None):
        raise UserError("--out and --listings-out name files: one has no name")
    catalogue = listings_out or listings_beside(out)
    _check_files([*files, *([metadata] if metadata else [])], out, catalogue)
    summary, written = Summary(), 0
    entries: Iterable[Entry]
    listings: Iterable[Listing] | None = None
    announced: Callable[[int], Iterable[importing.Announcement]] | None = None
    match format_:
        case "trivago":
            seen, properties = Seen(), trivago.properties(metadata) if metadata else {}
            entries = trivago.events(files, summary.skipped, seen)
            if metadata or listings_out:
                listings = trivago.listings(seen, properties)
        case "session-rec":
            entries = session_rec.events(files)
        case "globo":
            entries = globo.events(files)
        case "yoochoose":
            seen = Seen()
            entries, listings = yoochoose.events(files, seen), seen.described()
        case "diginetica":
            tables = diginetica.sort_out(files)
            entries = diginetica.events(tables, summary.skipped)
            if tables["products"] or tables["categories"]:
                listings = diginetica.listings(tables)
        case "retailrocket":
            tables = retailrocket.sort_out(files)
            entries = retailrocket.events(tables)
            if tables["properties"]:
                listings = retailrocket.listings(tables)
        case "otto":
            entries = otto.events(files)
        case "columns":
            seen, fields = Seen(), columns.named(named)
            if meant and "type" not in fields:
                raise UserError(
                    f"--type {meant[0]}: name the column that has such values with --column type=COLUMN"
                )
            entries = columns.events(files, fields, columns.meant(meant), unit, summary.skipped, seen)
            if listings_out or any(columns.tells_of_listings(field) for field in fields):
                listings = seen.described()
        case _:
            from models.datasets.marketplace import Marketplace
            from models.datasets.simulated_catalogue import FEWEST
            from models.datasets.simulated_visitors import PER_HOUR

            if size < markets * FEWEST:
                each = (
                    f"{markets} markets have {FEWEST} listings each"
                    if markets > 1
                    else f"a market has {FEWEST} listings"
                )
                fewer = ", or fewer --markets" if size >= FEWEST else ""
                raise UserError(f"--listings {size}: {each} at least: give {markets * FEWEST} or more{fewer}")
            try:
                market = Marketplace(seed, markets=markets, listings=size, start_ms=start)
            except ValueError as error:
                raise UserError(f"import marketplace: {error}") from None
            if days is not None and math.isnan(days):
                raise UserError("--days is a number")
            per_hour = PER_HOUR if days is None else visits / (24 * days)
            entries = ((event, None) for event in market.events(visits, per_hour=per_hour))
            listings, announced = market.listings, market.announcements
    if listings_out and listings is None:
        raise UserError(
            f"--listings-out: none of the files tells of listings; give {format_}'s tables of them"
        )
    gc.disable()  # Records are many and make no cycles: looking for some takes a fifth of the time.
    try:
        with Writer(out, Header(topic="clicks", partitions=partitions, source=format_)) as writer:
            shown = progress(entries, f"import {format_}", unit="events")
            records = importing.records(shown, partitions, summary)
            ordered = format_ in ("globo", "marketplace")
            for record in records if ordered else importing.in_time_order(records, out.parent):
                writer.write(record)
            if not writer.records:
                raise UserError(f"{files[0]}: no events in it")
            if announced is not None and catalogue.suffix == ".zst":
                written = importing.write_announcements(catalogue, announced(summary.last or 0), partitions)
            elif listings is not None:
                written = importing.write_listings(catalogue, listings)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror or error}") from None
    finally:
        gc.enable()
    report = {
        "format": format_,
        "recording": str(out),
        "records": writer.records,
        "partitions": partitions,
        "events": dict(sorted(summary.events.items())),
        "users": len(summary.users),
        "first": summary.first,
        "last": summary.last,
        "skipped": dict(sorted(summary.skipped.items())),
        "listings": {"file": str(catalogue), "number": written} if listings is not None else None,
    }
    if as_json:
        click.echo(msgspec.json.encode(report))
        return
    click.echo(_text(summary, out, writer.records, partitions))
    if listings is not None:
        click.echo(f"{catalogue}: {written:,} listings")


def listings_beside(recording: Path) -> Path:
    """Where the listings of a recording are written: `rio.jsonl.zst` has them in `rio.listings.jsonl`."""
    name = recording.name.removesuffix(".zst").removesuffix(".jsonl")
    return recording.with_name(f"{name}.listings.jsonl")


def _check(format_: str, files: tuple[str, ...]) -> None:
    """UserError where an option is of another format, or FILEs are missing or too many."""
    if format_ == "marketplace" and files:
        raise UserError("import marketplace takes no FILE: it is simulated")
    if format_ != "marketplace" and not files:
        raise UserError(f"import {format_}: give at least one FILE")
    source = click.get_current_context().get_parameter_source
    for name, formats in BELONGS.items():
        if format_ not in formats and source(name) is not ParameterSource.DEFAULT:
            flag = FLAGS.get(name, f"--{name.replace('_', '-')}")
            raise UserError(f"{flag} belongs to {' and '.join(formats)}, not to {format_}")


def _check_files(read: list[str], out: Path, catalogue: Path) -> None:
    """UserError where a file would be read twice, or written over what is read or written."""
    if _identity(catalogue) == _identity(out):
        raise UserError(f"{catalogue}: the recording and the listings can't be one file")
    seen: set[tuple[Hashable, str]] = set()
    for name in read:
        file, _, member = (name, "", "") if Path(name).exists() else name.rpartition(":")
        same = _identity(Path(file or name))
        for flag, written in (("--out", out), ("--listings-out", catalogue)):
            if same == _identity(written):
                raise UserError(f"{name} is read: writing {flag} to {written} would overwrite it")
        if (same, member) in seen:
            raise UserError(f"{name} is given twice")
        seen.add((same, member))


def _identity(path: Path) -> Hashable:
    """What two names of one file have in common."""
    try:
        status = path.stat()
    except OSError:
        return path.resolve()
    return status.st_dev, status.st_ino


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
