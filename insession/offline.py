"""A recording run without a broker, with its progress shown."""

from __future__ import annotations

import gc
from pathlib import Path

import click

from insession.progress import Progress
from models import bundle as bundles
from models import offline, recording
from models.bundle import Bundle
from models.errors import UserError
from models.listings import decode_record
from models.offline import Result

listings_option = click.option(
    "--listings",
    type=click.Path(path_type=Path, dir_okay=False),
    help="a recording of the topic listings: what was announced, where the bundle's users have seen more than it has",
)
"""The flag of every command that runs offline."""


def load(path: Path, listings: Path | None) -> Bundle:
    """The bundle at `path`, to which what a recording of `listings` says is announced. UserError where either can't be read."""
    loaded = bundles.load(path)
    if listings is not None:
        _, records = recording.read(listings)
        for record in records:
            try:
                loaded.announce(*decode_record(record.key, record.value))
            except ValueError as error:
                raise UserError(f"{listings}: not a recording of listings: {error}") from None
    return loaded


def run(path: Path, bundle: Bundle, *, keep: bool) -> Result:
    """What the recording at `path` gives; `keep` says that the outputs are wanted, and not only their numbers."""
    header, records = recording.read(path)
    # Nothing here makes cycles, and the collector would walk all the states again and again.
    gc.freeze()
    gc.disable()
    try:
        with Progress(f"running {path.name}", unit="events") as progress:
            placed = offline.placed(records, header.partitions)
            return offline.run(placed, bundle, keep=keep, on_progress=progress.update)
    finally:
        gc.enable()
        gc.unfreeze()
