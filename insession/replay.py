"""`insession replay`: a recording onto a topic, or through the same functions without a broker."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import click
import msgspec

from insession import tracking
from insession.interrupt import interrupt
from insession.offline import listings_option, load, run
from insession.progress import Progress
from insession.settings import Settings, options
from models import recording as recording_
from models.offline import Result


@click.command("replay")
@click.argument("recording", type=click.Path(path_type=Path))
@click.option("--topic", help="the topic [clicks, with the prefix]")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    help="a multiple of the recorded pace [as fast as the broker takes it]",
)
@click.option(
    "--offline", is_flag=True, help="use no broker: compute what a worker would, and say what came of it"
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="with --offline: write the expected result to this file (.jsonl, or .jsonl.zst)",
)
@listings_option
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@options("bootstrap", "topic_prefix", "bundle", "mlflow")
def command(
    settings: Settings,
    recording: Path,
    topic: str | None,
    speed: float | None,
    offline: bool,
    out: Path | None,
    listings: Path | None,
    as_json: bool,
) -> None:
    """Produce a recording's records, with their own times and partitions.

    The topic must keep everything, since recorded times are old, and should be empty: what comes behind newer
    records is late. With --offline the recording goes through the worker's own functions instead, with the bundle.

    \b
    Example:
      insession import marketplace --visits 300 --out sim.jsonl.zst
      insession topics --topic-prefix replayed- --retention forever
      insession replay sim.jsonl.zst --topic-prefix replayed-
    """
    if speed is not None and not math.isfinite(speed):
        raise click.BadParameter("must be a number", param_hint="--speed")
    if offline:
        if topic or speed:
            raise click.UsageError("--topic and --speed are for a broker, and --offline uses none")
        _offline(settings, recording, out, listings, as_json)
        return
    if out or listings:
        raise click.UsageError(f"--{'out' if out else 'listings'} goes with --offline")
    _online(settings, recording, topic or settings.topics.clicks, speed, as_json)


def _online(settings: Settings, path: Path, name: str, speed: float | None, as_json: bool) -> None:
    from streams import replay

    if replay.holds_records(settings.client, name):
        print(
            f"warning: {name} holds records already; what is replayed comes behind them, and is late where it is "
            "more than ten minutes older",
            file=sys.stderr,
        )
    # Read through before the first record is sent: half of a damaged recording on a topic is of no use.
    total = recording_.count(path)
    started = time.monotonic()
    with interrupt() as told, Progress(f"replaying to {name}", total, "records") as progress:
        records = replay.replay(
            settings.client, path, name, progress.update, speed=speed, stop=lambda: bool(told)
        )
    seconds = round(time.monotonic() - started, 3)
    if as_json:
        click.echo(
            msgspec.json.encode(
                {
                    "topic": name,
                    "records": records,
                    "of": total,
                    "seconds": seconds,
                    "interrupted": bool(told),
                }
            )
        )
    elif told:
        click.echo(f"interrupted: {records:,} of {total:,} records are on {name} after {seconds:.1f} s")
    else:
        click.echo(f"{records:,} records are on {name} after {seconds:.1f} s")
    if told:
        sys.exit(told.code)


def _offline(settings: Settings, path: Path, out: Path | None, listings: Path | None, as_json: bool) -> None:
    from models import expected
    from models.expected import Header

    loaded = load(tracking.fetched(settings.bundle, settings.mlflow, settings.state), listings)
    started = time.monotonic()
    result = run(path, loaded, keep=out is not None)
    seconds = time.monotonic() - started
    if out is not None:
        header = Header(bundle=loaded.name, recording=result.recording)
        expected.write(out, header, expected.result(result.outputs))
    if as_json:
        click.echo(
            msgspec.json.encode(
                {
                    "events": result.events,
                    "kinds": dict(result.kinds),
                    "duplicates": result.duplicates,
                    "dead_letters": dict(result.dead),
                    "sessions": result.sessions,
                    "users": result.users,
                    "seconds": round(seconds, 3),
                    "events_per_second": round(result.events / seconds),
                    "bundle": loaded.name,
                    "recording": result.recording,
                    "out": str(out) if out else None,
                }
            )
        )
    else:
        click.echo(text(path, result, seconds))
        if out is not None:
            click.echo(f"the expected result is in {out}")


def text(path: Path, result: Result, seconds: float) -> str:
    """What came of a run, for people."""
    lines = [f"{path}: {result.events:,} events in {seconds:.1f} s, {result.events / seconds:,.0f}/s"]
    lines += [f"{count:>14,} {kind}" for kind, count in result.kinds.most_common()]
    lines += [f"{count:>14,} dead letters: {reason}" for reason, count in result.dead.most_common()]
    if result.duplicates:
        lines.append(f"{result.duplicates:>14,} came twice, or were forgotten")
    lines.append(f"{result.sessions:>14,} sessions closed, of {result.users:,} users")
    return "\n".join(lines)
