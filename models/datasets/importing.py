"""From a format's events to a recording: records in event-time order, in bounded memory, and a summary of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import merge
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from models import recording
from models.datasets.distinct import Distinct
from models.errors import UserError
from models.events import Event, Tick, encode
from models.listings import Listing
from models.recording import SESSION, Header, Record, Writer, read

CHUNK_BYTES = 1 << 27
USERS = 1 << 18
"""Partitions of so many users are remembered, some 40 MB."""
RECORD_BYTES = 400
"""What a record takes in memory besides its value, roughly."""

Entry = tuple[Event, str | None]
"""An event, and the session its source counts it to."""

Announcement = tuple[int, str, Listing | None]
"""When something is said of a listing (ms), which, and what; None where it goes."""


@dataclass(slots=True)
class Summary:
    """What was imported. Times are milliseconds; `skipped` counts rows that became no event, by reason."""

    events: Counter[str] = field(default_factory=Counter)
    users: Distinct = field(default_factory=Distinct)
    first: int | None = None
    last: int | None = None
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, event: Event) -> None:
        """Count an event."""
        self.events[event.__struct_config__.tag] += 1  # type: ignore[index]
        if not isinstance(event, Tick):
            self.users.add(event.user_id)
        time = event.timestamp
        if self.first is None or self.last is None:
            self.first = self.last = time
        elif time > self.last:
            self.last = time
        elif time < self.first:
            self.first = time


def records(entries: Iterable[Entry], partitions: int, summary: Summary) -> Iterator[Record]:
    """The records of the events, in their order: on the partitions where Kafka's Java client would put them."""
    # Sets in order of time come back to a user after many others, whom the small cache of a sidecar does not hold.
    partition_of = lru_cache(maxsize=USERS)(recording.partition_of.__wrapped__)
    for event, session in entries:
        summary.add(event)
        key = None if isinstance(event, Tick) else event.user_id.encode()
        headers = () if session is None else ((SESSION, session.encode()),)
        partition = 0 if key is None else partition_of(key, partitions)
        yield Record(partition, None, event.timestamp, key, headers, encode(event))


def in_time_order(
    items: Iterable[Record], folder: str | os.PathLike[str], chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Record]:
    """The records by timestamp; those of one timestamp in the order they came.

    Holds about `chunk_bytes` of them in memory; more than that goes, sorted, through temporary recordings in
    `folder`, which are merged (an external merge sort).
    """
    with TemporaryDirectory(dir=folder, prefix=".sorting-") as temporary:
        sorted_files: list[Path] = []
        chunk: list[Record] = []
        size = 0
        for record in items:
            chunk.append(record)
            size += RECORD_BYTES + len(record.value or b"")
            if size >= chunk_bytes:
                sorted_files.append(_spill(chunk, Path(temporary) / f"{len(sorted_files)}.jsonl.zst"))
                chunk, size = [], 0
        chunk.sort(key=_time)
        yield from merge(*(read(path)[1] for path in sorted_files), chunk, key=_time)


def _time(record: Record) -> int:
    return record.timestamp


def _spill(chunk: list[Record], path: Path) -> Path:
    chunk.sort(key=_time)
    partitions = 1 + max(record.partition or 0 for record in chunk)
    with Writer(path, Header(topic="sorting", partitions=partitions)) as writer:
        for record in chunk:
            writer.write(record)
    return path


def write_listings(path: Path, listings: Iterable[Listing]) -> int:
    """Write a listings file, a JSON line for each, whole or not at all; how many there were."""
    encoder = msgspec.json.Encoder()
    part = path.with_name(path.name + ".part")
    number = 0
    try:
        with part.open("wb") as file:
            for listing in listings:
                file.write(encoder.encode(listing) + b"\n")
                number += 1
        part.replace(path)
    except OSError as error:
        raise UserError(f"{part}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
    return number


def write_announcements(path: Path, said: Iterable[Announcement], partitions: int) -> int:
    """Write a recording of the topic `listings`: when each came, and a record without a value where it went; how many
    there are in it. Raises UserError where it can't be written."""
    encoder = msgspec.json.Encoder()
    listings: set[str] = set()
    try:
        with Writer(path, Header(topic="listings", partitions=partitions)) as writer:
            for time, listing_id, listing in said:
                key, value = listing_id.encode(), None if listing is None else encoder.encode(listing)
                writer.write(Record(recording.partition_of(key, partitions), None, time, key, (), value))
                listings.add(listing_id)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    return len(listings)
