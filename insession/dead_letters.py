"""`insession dead-letters`: what was not applied and why, and back onto the topic what has been repaired."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from heapq import heappush, heapreplace
from pathlib import Path

import click
import msgspec

from insession.progress import Progress, progress
from insession.settings import Settings, options
from insession.times import text
from models.errors import UserError
from models.events import Impossible, Late, Unreadable
from streams import dead_letters
from streams.dead_letters import Letter

REASONS = [error.reason for error in (Unreadable, Impossible, Late)]
SHOWN = 4_000
"""So many characters of a value are shown."""


class Origin(click.ParamType):
    """PARTITION:OFFSET of a record on `clicks`."""

    name = "PARTITION:OFFSET"

    def convert(
        self, value: str | tuple[int, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        partition, _, offset = value.partition(":")
        if not (partition.isdecimal() and offset.isdecimal()):
            self.fail(f"`{value}` is not PARTITION:OFFSET, such as 1:4711", param, ctx)
        return int(partition), int(offset)


@click.group("dead-letters")
def command() -> None:
    """Look at what was not applied, and put back what has been repaired.

    \b
    Example:
      insession dead-letters list
    """


@command.command("list")
@click.option("--reason", type=click.Choice(REASONS), help="only these")
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    help="how many of each reason are shown, the newest",
)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@options("bootstrap", "topic_prefix")
def list_(settings: Settings, reason: str | None, limit: int, as_json: bool) -> None:
    """Count the dead letters by reason, and show the newest of each.

    \b
    Example:
      insession topics
      insession dead-letters list --reason unreadable --limit 20
    """
    counts: Counter[str] = Counter()
    newest: dict[str, list[tuple[tuple[int, int, int], Letter]]] = {}
    there = dead_letters.letters(settings.client, settings.topics)
    for letter in progress(there, "reading dead letters", unit="letters"):
        if reason not in (None, letter.reason):
            continue
        counts[letter.reason] += 1
        kept, one = newest.setdefault(letter.reason, []), (_age(letter), letter)
        if len(kept) < limit:
            heappush(kept, one)
        elif limit and one[0] > kept[0][0]:
            heapreplace(kept, one)
    shown = {name: [letter for _, letter in sorted(newest[name])[::-1]] for name, _ in counts.most_common()}
    if as_json:
        lists = {
            name: {"count": counts[name], "newest": [_facts(one) for one in shown[name]]} for name in shown
        }
        click.echo(msgspec.json.encode(lists))
        return
    if not counts:
        click.echo(f"no dead letters on {settings.topics.dead_letters}")
    for name, some in shown.items():
        click.echo(f"{name}: {counts[name]:,}")
        for letter in some:
            size = f"{letter.length:,} bytes"
            detail = readable(letter.detail.encode(errors="replace"), 120)
            click.echo(f"  {letter.origin:<12} {text(letter.timestamp)} {size:>16}  {detail}")


@command.command("show")
@click.argument("origin", type=Origin())
@click.option("--raw", is_flag=True, help="write the bytes of the value, and nothing else")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@options("bootstrap", "topic_prefix")
def show(settings: Settings, origin: tuple[int, int], raw: bool, as_json: bool) -> None:
    """Show the dead letter of the record that stood at PARTITION:OFFSET on `clicks`.

    \b
    Example:
      insession dead-letters show 1:4711 --raw > event.json
      insession dead-letters show 1:4711
    """
    if raw and as_json:
        raise click.UsageError("--raw and --json exclude each other")
    letter = dead_letters.find(settings.client, settings.topics, *origin)
    if raw:
        sys.stdout.buffer.write(dead_letters.whole(settings.client, settings.topics, letter) or b"")
        return
    if as_json:
        click.echo(
            msgspec.json.encode(
                {**_facts(letter), **_bytes("key", letter.key), **_bytes("value", letter.value)}
            )
        )
        return
    for name, fact in _facts(letter).items():
        told = text(int(str(fact))) if name in ("timestamp", "written") else str(fact)
        click.echo(f"{name:<10} {readable(told.encode(errors='replace'))}")
    click.echo(f"{'key':<10} {readable(letter.key)}")
    click.echo(f"{'value':<10} {readable(letter.value)}")
    if letter.cut:
        click.echo(
            f"cut: {len(letter.value or b''):,} of {letter.length:,} bytes; --raw writes all while "
            f"{settings.topics.clicks} has the record"
        )


@command.command("put-back")
@click.argument("origins", type=Origin(), nargs=-1, metavar="[PARTITION:OFFSET]...")
@click.option("--reason", type=click.Choice(REASONS), help="all of this reason, instead of naming them")
@click.option(
    "--value",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="a file with the repaired value, for one",
)
@click.option("--through", help="a shell command that is given each value and prints the repaired one")
@click.option("--dry-run", is_flag=True, help="put nothing back, only say what would be")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@options("bootstrap", "topic_prefix")
def put_back(
    settings: Settings,
    origins: tuple[tuple[int, int], ...],
    reason: str | None,
    value: Path | None,
    through: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put dead letters back on `clicks`: as they are, with the value in a file, or each through a command.

    Left out is what would be a dead letter again, and what was put back before. Exits with 1 where any is.

    \b
    Example:
      insession dead-letters put-back 1:4711 --value event.json
      insession dead-letters put-back --reason unreadable --through 'jq -c ".timestamp |= floor"' --dry-run
    """
    if bool(origins) == (reason is not None):
        raise click.UsageError("name records as PARTITION:OFFSET, or give --reason")
    if value is not None and (len(origins) != 1 or through is not None):
        raise click.UsageError("--value is for one record, and without --through")
    client, topics = settings.client, settings.topics
    chosen = (
        [dead_letters.find(client, topics, *origin) for origin in origins]
        if origins
        else [letter for letter in dead_letters.letters(client, topics) if letter.reason == reason]
    )
    repaired = value.read_bytes() if value is not None else None

    def repair(whole: bytes | None) -> bytes | None:
        if repaired is not None:
            return repaired
        return whole if through is None else _through(through, whole)

    with Progress("putting back", len(chosen), "letters") as shown:
        outcomes = dead_letters.put_back(client, topics, chosen, repair, shown.update, dry_run=dry_run)
    left_out = [outcome for outcome in outcomes if outcome.left_out is not None]
    if as_json:
        click.echo(msgspec.json.encode(outcomes))
    else:
        for outcome in outcomes:
            if outcome.left_out is not None:
                says = f"left out: {readable(outcome.left_out.encode(errors='replace'))}"
            else:
                says = f"stands at {outcome.stands}" if outcome.stands else "would be put back"
            click.echo(f"{outcome.origin:<12} {says}")
        done = f"{len(outcomes) - len(left_out):,} of {len(outcomes):,}"
        click.echo(f"{done} {'would be' if dry_run else 'are'} back on {topics.clicks}")
    sys.exit(1 if left_out else 0)


def _through(command: str, value: bytes | None) -> bytes:
    done = subprocess.run(command, shell=True, input=value or b"", capture_output=True, check=False)
    if done.returncode != 0:
        *_, last = ["", *done.stderr.decode(errors="replace").strip().splitlines()]
        raise UserError(f"the command ended with {done.returncode}: {last}")
    return done.stdout


def _age(letter: Letter) -> tuple[int, int, int]:
    return letter.written, letter.partition, letter.offset


def _facts(letter: Letter) -> dict[str, object]:
    """All but key and value."""
    facts = {name: getattr(letter, name) for name in Letter.__struct_fields__}
    return {name: fact for name, fact in facts.items() if name not in ("key", "value")}


def _bytes(name: str, data: bytes | None) -> dict[str, object]:
    """As in a recording: text where it is UTF-8, base64 under another name where not."""
    try:
        return {name: None if data is None else data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": data}


def readable(data: bytes | None, most: int = SHOWN) -> str:
    """Bytes for a terminal: text as it is, escapes for what is none or can't be seen."""
    if data is None:
        return "null"
    shown = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in data.decode(errors="backslashreplace")[:most]
    )
    left = len(data.decode(errors="backslashreplace")) - most
    return f"{shown} ... {left:,} more" if left > 0 else shown
