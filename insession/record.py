"""`insession record`: a topic into a file."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from insession.interrupt import interrupt
from insession.progress import Progress
from insession.settings import Settings, options

if TYPE_CHECKING:
    from streams.record import Missing


@click.command("record")
@click.option("--topic", help="the topic [clicks, with the prefix]")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="the recording; where it is there already, it is gone on with",
)
@click.option("--follow", is_flag=True, help="go on recording what comes, until Ctrl-C or SIGTERM")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@options("bootstrap", "topic_prefix")
def command(settings: Settings, topic: str | None, out: Path, follow: bool, as_json: bool) -> None:
    """Record what is on a topic, with keys, times, headers, partitions and offsets.

    It ends at the topic's end, or with --follow when it is told to. Interrupted at any moment, the same command
    goes on where it was; Ctrl-C and SIGTERM leave a whole recording of what came until then.

    \b
    Example:
      insession import marketplace --visits 300 --out sim.jsonl.zst
      insession topics --topic-prefix recorded- --retention forever
      insession replay sim.jsonl.zst --topic-prefix recorded-
      insession record --topic-prefix recorded- --out yesterday.jsonl.zst
    """
    from streams import record

    name = topic or settings.topics.clicks

    def on_missing(gap: Missing) -> None:
        print(
            f"warning: offsets {gap.first:,} to {gap.last:,} of partition {gap.partition} are missing in {out}: "
            f"{name} no longer had them, by its retention, when the recording came to them",
            file=sys.stderr,
        )

    title = f"recording {name}{' until Ctrl-C' if follow else ''}"
    with interrupt() as told, Progress(title, unit="records") as progress:
        recorded = record.record(
            settings.client,
            name,
            out,
            progress.update,
            follow=follow,
            stop=lambda: bool(told),
            on_missing=on_missing,
        )
    interrupted = bool(told) and not follow
    new = recorded.records - recorded.before
    if as_json:
        click.echo(
            msgspec.json.encode(
                {
                    "topic": name,
                    "records": recorded.records,
                    "new": new,
                    "missing": [asdict(gap) for gap in recorded.missing],
                    "interrupted": interrupted,
                    "out": str(out),
                }
            )
        )
    else:
        of_them = f", {new:,} of them new" if recorded.before else ""
        click.echo(f"{recorded.records:,} records of {name} are in {out}{of_them}")
        if interrupted:
            click.echo(f"interrupted before the end of {name}: the same command goes on from here")
    if interrupted:
        sys.exit(told.code)
