"""Which format a file is in, told by its first bytes and columns, and its events: what a command takes that reads any of them.

A format is one line in FORMATS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from models import lines, recording
from models.datasets import (
    columns,
    diginetica,
    globo,
    otto,
    retailrocket,
    session_rec,
    tabular,
    trivago,
    yoochoose,
)
from models.datasets.importing import Entry
from models.datasets.seen import Seen
from models.errors import UserError
from models.events import EventError, decode

DELIMITERS = "\t;,"


@dataclass(frozen=True, slots=True)
class Head:
    """What can be told of a file at a glance."""

    line: str
    """Its first line, as far as it is text; empty where it is parquet."""
    columns: frozenset[str]
    """The names in its first line, or in its schema where it is parquet."""
    tabs: bool
    """The names are separated by tabs."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format that files can be told to be in."""

    name: str
    looks: str
    """How such a file can be known, for people."""
    tells: Callable[[Head], bool]
    events: Callable[[Sequence[str]], Iterator[Entry]]


def recorded(paths: Sequence[str]) -> Iterator[Entry]:
    """The events of recordings, with the sessions in their headers; records that are no events are passed over.

    Raises UserError as models.recording.read does.
    """
    for path in paths:
        _, records = recording.read(path)
        for record in records:
            try:
                event = decode(record.value, record.key)
            except EventError:
                continue
            named = dict(record.headers).get(recording.SESSION)
            yield event, named.decode(errors="replace") if named is not None else None


def _by_names(paths: Sequence[str]) -> Iterator[Entry]:
    """The events of tables whose columns have the names of the fields."""
    names = [name for name in columns.FIELDS if all(name in _head(path).columns for path in paths)]
    fields = columns.named([f"{name}={name}" for name in names])
    return columns.events(paths, fields, columns.meant(()), None, Counter(), Seen())


FORMATS = (
    Format(
        "recording",
        "a recording (.jsonl.zst, .jsonl)",
        lambda head: head.line.startswith("{") and '"insession-recording"' in head.line,
        recorded,
    ),
    Format(
        "session-rec",
        f"tab-separated with {', '.join(session_rec.COLUMNS)}",
        lambda head: head.tabs and head.columns.issuperset(session_rec.COLUMNS),
        session_rec.events,
    ),
    Format(
        "globo",
        f"parquet or CSV with {', '.join(globo.COLUMNS)}",
        lambda head: head.columns.issuperset(globo.COLUMNS),
        globo.events,
    ),
    Format(
        "trivago",
        f"CSV with {', '.join(trivago.COLUMNS)}",
        lambda head: head.columns.issuperset(trivago.COLUMNS),
        lambda paths: trivago.events(paths, Counter()),
    ),
    Format(
        "yoochoose",
        f"CSV without a header of {', '.join(yoochoose.CLICKS)}",
        lambda head: yoochoose.columns(head.line.split(",")) is not None,
        lambda paths: yoochoose.events(paths, Seen()),
    ),
    Format(
        "diginetica",
        "Diginetica's tables, with semicolons",
        lambda head: ";" in head.line and any(map(head.columns.issuperset, diginetica.TABLES.values())),
        lambda paths: diginetica.events(diginetica.sort_out(paths), Counter()),
    ),
    Format(
        "retailrocket",
        f"CSV with {', '.join(retailrocket.TABLES['events'])}",
        lambda head: any(map(head.columns.issuperset, retailrocket.TABLES.values())),
        lambda paths: retailrocket.events(retailrocket.sort_out(paths)),
    ),
    Format(
        "otto",
        'JSON lines of {"session", "events"}',
        lambda head: head.line.startswith('{"session"'),
        otto.events,
    ),
    Format(
        "columns",
        f"CSV or parquet with {', '.join(columns.NEEDED)}",
        lambda head: head.columns.issuperset(columns.NEEDED),
        _by_names,
    ),
)


def detect(path: str) -> Format:
    """The format of a file, or of a zip's member (`FILE.zip:MEMBER`).

    Raises UserError where it can't be read, or is in none of FORMATS.
    """
    head = _head(path)
    for known in FORMATS:
        if known.tells(head):
            return known
    found = ", ".join(sorted(repr(name[:40]) for name in head.columns)[:16]) or "nothing"
    looks = "; ".join(known.looks for known in FORMATS)
    raise UserError(f"{path}:1: in no format that is known: {looks}. Found {found}")


def entries(paths: Sequence[str]) -> Iterator[Entry]:
    """The events of files in any of FORMATS, and the sessions they name, file after file.

    Raises UserError as `detect` does, before the first event, and as the format's importer does.
    """
    of = [(detect(path), path) for path in paths]
    for known, same in groupby(of, key=lambda pair: pair[0]):
        yield from known.events([path for _, path in same])


def _head(path: str) -> Head:
    try:
        with tabular.opened(path) as stream:
            magic = stream.read(4)
            rest = (
                b"" if magic in (tabular.PARQUET, lines.ZSTD_MAGIC) else stream.readline(tabular.LINE_BYTES)
            )
    except EOFError:
        raise UserError(f"{path}:1: truncated: the compressed file ends in the middle of its data") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    if magic == tabular.PARQUET:
        return Head("", frozenset(_schema(path)), False)
    if magic == lines.ZSTD_MAGIC:
        line = next((content for _, content in lines.read(Path(path))), b"")
    elif b"\n" in magic:
        line = magic.partition(b"\n")[0]
    else:
        line = magic + rest
    text = line.decode("utf-8-sig", errors="replace").strip("\r\n")
    tabs = "\t" in text
    delimiter = next((sign for sign in DELIMITERS if sign in text), ",")
    return Head(text, frozenset(name.strip('"') for name in text.split(delimiter)), tabs)


def _schema(path: str) -> list[str]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise UserError("reading parquet needs pyarrow: pip install 'insession[train]'") from None
    try:
        names: list[str] = parquet.read_schema(path).names
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: parquet that can't be read: {' '.join(str(error).split())}") from None
    return names
