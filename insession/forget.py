"""`insession forget`: erase users."""

from __future__ import annotations

import time
from typing import IO

import click
import msgspec

from insession.progress import Progress
from insession.settings import Settings, options
from models.errors import UserError
from models.topics import DAY_MS
from streams import forget, topics


@click.command("forget")
@click.argument("users", nargs=-1, metavar="[USER]...")
@click.option("--from", "file", type=click.File("rb"), help="a file with a user id on each line; - is stdin")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@options("bootstrap", "topic_prefix")
def command(settings: Settings, users: tuple[str, ...], file: IO[bytes] | None, as_json: bool) -> None:
    """Erase what is kept of users: puts a `forget` event for each on `clicks`, and the worker does the rest.

    It goes where Kafka's Java client puts the user's events; where your producers partition otherwise, write the
    event yourself, beside the user's own.

    \b
    Example:
      insession topics
      insession forget ada
    """
    if bool(users) == (file is not None):
        raise click.UsageError("name users, or give --from")
    named = list(users) if file is None else _lines(file)
    now = int(time.time() * 1000)
    with Progress("forgetting", len(named), "users") as progress:
        done = forget.forget(settings.client, settings.topics, named, now=now, on_progress=progress.update)
    names = settings.topics
    logs = topics.describe(settings.client, (names.clicks, names.sessions, names.dead_letters))
    keeps = {name: topics.retention(found) for name, found in logs.items()}
    if as_json:
        click.echo(msgspec.json.encode({"forgotten": done, "retention_ms": keeps}))
        return
    for one in done if users else ():
        click.echo(f"{one.user_id}: forget stands at {one.partition}:{one.offset} of {names.clicks}")
    click.echo(
        f"{len(done):,} {'user' if len(done) == 1 else 'users'} to forget, by all that is dated up to now. When the "
        f"worker comes to it, states and histories go; ten minutes of event time later nothing of them is left on "
        f"{names.user_embeddings} and {names.user_histories} but tombstones, nor in workers and sidecars."
    )
    kept = ", ".join(f"{name} ({_days(ms)})" for name, ms in keeps.items())
    click.echo(f"Only retention erases them from {kept}; recordings are files, and yours to delete.")


def _lines(file: IO[bytes]) -> list[str]:
    try:
        lines = [line.rstrip(b"\r\n").decode() for line in file]
    except UnicodeDecodeError as error:
        raise UserError(f"what --from names is not UTF-8: {error}; nobody was forgotten") from None
    return [line for line in lines if line]


def _days(ms: int | None) -> str:
    if ms is None:
        return "for how long the broker does not say"
    return "kept for ever" if ms < 0 else f"{ms / DAY_MS:g} days"
