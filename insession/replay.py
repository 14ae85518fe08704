"""`insession replay`: a recording onto a topic."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec

from insession.progress import Progress
from insession.settings import Settings, options


@click.command("replay")
@click.argument("recording", type=click.Path(path_type=Path))
@click.option("--topic", help="the topic [clicks, with the prefix]")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    help="a multiple of the recorded pace [as fast as the broker takes it]",
)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@options("bootstrap", "topic_prefix")
def command(
    settings: Settings, recording: Path, topic: str | None, speed: float | None, as_json: bool
) -> None:
    """Produce a recording's records, with their own times and partitions.

    \b
    Example:
      insession import marketplace --visits 300 --out sim.jsonl.zst
      insession topics --topic-prefix replayed- --retention forever
      insession replay sim.jsonl.zst --topic-prefix replayed-
    """
    from streams import replay

    name = topic or settings.topics.clicks
    started = time.monotonic()
    with Progress(f"replaying to {name}", unit="records") as progress:
        records = replay.replay(settings.client, recording, name, progress.update, speed=speed)
    seconds = round(time.monotonic() - started, 3)
    if as_json:
        click.echo(msgspec.json.encode({"topic": name, "records": records, "seconds": seconds}))
    else:
        click.echo(f"{records:,} records are on {name} after {seconds:.1f} s")
