"""`insession record`: a topic into a file."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from insession.progress import Progress
from insession.settings import Settings, options


@click.command("record")
@click.option("--topic", help="the topic [clicks, with the prefix]")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="the recording")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@options("bootstrap", "topic_prefix")
def command(settings: Settings, topic: str | None, out: Path, as_json: bool) -> None:
    """Record what is on a topic, with keys, times, headers, partitions and offsets.

    \b
    Example:
      insession import marketplace --visits 300 --out sim.jsonl.zst
      insession topics --topic-prefix recorded- --retention forever
      insession replay sim.jsonl.zst --topic-prefix recorded-
      insession record --topic-prefix recorded- --out yesterday.jsonl.zst
    """
    from streams import record

    name = topic or settings.topics.clicks
    with Progress(f"recording {name}", unit="records") as progress:
        records = record.record(settings.client, name, out, progress.update)
    if as_json:
        click.echo(msgspec.json.encode({"topic": name, "records": records, "out": str(out)}))
    else:
        click.echo(f"{records:,} records of {name} are in {out}")
