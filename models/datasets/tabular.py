"""Rows of delimited text (plain, gzip or a member of a zip, told by the content) whose errors name file, line and column."""

from __future__ import annotations

import csv
import gzip
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, cast

from models.errors import UserError
from models.events import RESERVED

PARQUET = b"PAR1"
"""What a parquet file begins with, which is no text."""
LINE_BYTES = 1 << 20
"""No line of these formats is longer: what is longer is not text."""
LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, as in events.Timestamp."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class WrongCell(ValueError):
    """A cell that is not what its column holds. The message names the column, what was expected and what was found."""

    def __init__(self, column: str, expected: str, found: object) -> None:
        text = repr(found)
        super().__init__(
            f"column `{column}`: expected {expected}, found {text if len(text) < 80 else text[:77] + '...'}"
        )


def rows(
    path: str,
    needed: Sequence[str],
    optional: Sequence[str] = (),
    *,
    delimiter: str = ",",
    headed: bool = True,
) -> Iterator[tuple[int, list[str]]]:
    """Each row's line number and its cells in the order of `needed` and `optional`, whatever their order in the file.

    `path` is a file, or `FILE.zip:MEMBER`. Cells of an optional column that is not there are empty; empty lines
    are passed over. A file that is not `headed` has the needed columns, in their order. Raises UserError, with file
    and line, where it can't be read as a table with the needed columns.
    """
    every = table(path, delimiter=delimiter)
    if headed:
        _, names = next(every, (1, None))
        if names is None:
            raise UserError(f"{path}: an empty file; expected the columns {', '.join(needed)}")
        at = _places(path, names, needed, optional)
        width, like = len(names), "as in the first line"
    else:
        at, width, like = list(range(len(needed))), len(needed), ", ".join(needed)
    for line, fields in every:
        if len(fields) == width:
            fields.append("")
            yield line, [fields[place] for place in at]
        elif fields:
            raise UserError(f"{path}:{line}: expected {width} fields, {like}, found {len(fields)}")


def header(path: str, *, delimiter: str = ",") -> list[str]:
    """The cells of a file's first line; none where the file is empty. Raises UserError as `rows` does."""
    _, names = next(table(path, delimiter=delimiter), (1, []))
    return names


def sort_out(
    paths: Sequence[str], tables: Mapping[str, Sequence[str]], *, delimiter: str = ","
) -> dict[str, list[str]]:
    """The files of a set by which of its `tables` they are: the one with most columns, all of which are in the header.

    Raises UserError, naming what was expected, for a file that is none of them.
    """
    sorted_out: dict[str, list[str]] = {name: [] for name in tables}
    for path in paths:
        found = set(header(path, delimiter=delimiter))
        fitting = [name for name, columns in tables.items() if found.issuperset(columns)]
        if not fitting:
            expected = "; ".join(f"{name} ({', '.join(columns)})" for name, columns in tables.items())
            raise UserError(f"{path}:1: expected the columns of one of {expected}")
        sorted_out[max(fitting, key=lambda name: len(tables[name]))].append(path)
    return sorted_out


def table(path: str, *, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Every row's line number and all of its cells, the header's too. Raises UserError as `rows` does."""
    line = 1
    try:
        reader = csv.reader(
            (raw.decode("utf-8-sig" if number == 1 else "utf-8") for number, raw in lines(path)),
            delimiter=delimiter,
            strict=True,
            quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
        )
        for fields in reader:
            yield reader.line_num, fields
            line = reader.line_num + 1
    except UnicodeDecodeError:
        raise UserError(f"{path}:{line}: expected text in UTF-8, found other bytes") from None
    except csv.Error as error:
        raise UserError(f"{path}:{line}: expected delimited text: {error}") from None


def lines(path: str) -> Iterator[tuple[int, bytes]]:
    """Each line's number and bytes, unpacked, with the line feed. Raises UserError, with file and line, where it can't be read."""
    number = 0
    try:
        with opened(path) as stream:
            while raw := stream.readline(LINE_BYTES):
                number += 1
                if len(raw) == LINE_BYTES:
                    raise UserError(
                        f"{path}:{number}: a line longer than a megabyte: not a file of this format"
                    )
                yield number, raw
    except EOFError:
        raise UserError(
            f"{path}:{number + 1}: truncated: the compressed file ends in the middle of its data"
        ) from None
    except (zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise UserError(f"{path}:{number + 1}: a damaged compressed file: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked where it is gzip, or of a zip's member. Raises UserError for a zip and no such member."""
    archive, member = path, ""
    if not Path(path).exists() and ":" in path:
        archive, _, member = path.rpartition(":")
    with open(archive, "rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=file) as plain:
                yield cast(IO[bytes], plain)
        elif magic == b"PK\x03\x04":
            with zipfile.ZipFile(file) as zipped:
                names = zipped.namelist()
                if member not in names:
                    raise UserError(
                        f"{path}: name one of the zip's members: {archive}:{{{','.join(names[:9])}}}"
                    )
                with zipped.open(member) as unpacked:
                    yield unpacked
        elif member:
            raise UserError(f"{path}: {archive} is not a zip")
        else:
            yield file


def _places(path: str, names: list[str], needed: Sequence[str], optional: Sequence[str]) -> list[int]:
    missing = [name for name in needed if name not in names]
    if missing:
        found = ", ".join(repr(name[:40]) for name in names[:16])
        raise UserError(
            f"{path}:1: no column `{missing[0]}`: expected the columns {', '.join(needed)}, found {found}"
        )
    return [names.index(name) if name in names else len(names) for name in (*needed, *optional)]


def identifier(text: str, column: str) -> str:
    """An id as events have it: 1 to 256 characters, and as many bytes, not blank, without control characters."""
    if not 0 < len(text) <= 256:
        raise WrongCell(column, "1 to 256 characters", text)
    if not (text.isascii() and text.isprintable()) or text.isspace():
        if text.isspace() or CONTROL.search(text):
            raise WrongCell(column, "an id that is not blank and has no control characters", text)
        if len(text.encode()) > 256:
            raise WrongCell(column, "at most 256 bytes in UTF-8", text)
    return text


def user(text: str, column: str) -> str:
    """A user's id: an id that is not one of the reserved ones."""
    if text.startswith(RESERVED):
        raise WrongCell(column, f"an id that does not begin with `{RESERVED}`", text)
    return identifier(text, column)


def number(text: str, column: str) -> float:
    """A finite decimal number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise WrongCell(column, "a number", text)
    return value


def price(text: str, column: str) -> float | None:
    """A price; None where there is none, or 0, which sets without one write."""
    if not text:
        return None
    amount = number(text, column)
    if not 0 <= amount <= 1e12:
        raise WrongCell(column, "a price from 0 to 1e12", text)
    return amount or None


def whole(text: str, column: str, expected: str = "milliseconds since 1970, up to the year 9999") -> int:
    """A whole number that is a time in milliseconds; `expected` names it in the error."""
    if not (text.isascii() and text.isdigit() and len(text) < 16) or int(text) > LAST_MS:
        raise WrongCell(column, expected, text)
    return int(text)


def iso(text: str, column: str) -> int:
    """An ISO date or time, UTC where it names no zone, in milliseconds since the epoch."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise WrongCell(column, "an ISO date or time, like 2014-04-07T10:51:09.277Z", text) from None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH
    if since.days < 0:
        raise WrongCell(column, "a time since 1970", text)
    return since.days * 86_400_000 + since.seconds * 1_000 + since.microseconds // 1_000


day = lru_cache(maxsize=1 << 12)(iso)
"""`iso`, for columns of days."""


def milliseconds(text: str, column: str) -> int:
    """A time given in seconds since the epoch, in milliseconds since the epoch."""
    if text.isascii() and text.isdigit() and len(text) < 16:
        time = int(text) * 1000
    else:
        seconds = number(text, column)
        time = round(seconds * 1000) if abs(seconds) < LAST_MS else -1
    if not 0 <= time <= LAST_MS:
        raise WrongCell(column, "seconds since 1970, up to the year 9999", text)
    return time
