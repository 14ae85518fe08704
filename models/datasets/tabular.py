"""Rows of delimited text (plain, gzip or a member of a zip, told by the content) whose errors name file, line and column."""

from __future__ import annotations

import csv
import gzip
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from models.errors import UserError
from models.events import RESERVED

LINE_BYTES = 1 << 20
"""No line of these formats is longer: what is longer is not text."""
LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, as in events.Timestamp."""


class WrongCell(ValueError):
    """A cell that is not what its column holds. The message names the column, what was expected and what was found."""

    def __init__(self, column: str, expected: str, found: object) -> None:
        text = repr(found)
        super().__init__(
            f"column `{column}`: expected {expected}, found {text if len(text) < 80 else text[:77] + '...'}"
        )


def rows(
    path: str, needed: Sequence[str], optional: Sequence[str] = (), *, delimiter: str = ","
) -> Iterator[tuple[int, list[str]]]:
    """Each row's line number and its cells in the order of `needed` and `optional`, whatever their order in the file.

    `path` is a file, or `FILE.zip:MEMBER`. Cells of an optional column that is not there are empty; empty lines
    are passed over. Raises UserError, with file and line, where it can't be read as a table with the needed columns.
    """
    line = 1
    try:
        with opened(path) as stream:
            table = csv.reader(
                _lines(stream),
                delimiter=delimiter,
                strict=True,
                quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
            )
            names = next(table, None)
            if names is None:
                raise UserError(f"{path}: an empty file; expected the columns {', '.join(needed)}")
            at = _places(path, names, needed, optional)
            line = table.line_num + 1
            for fields in table:
                if len(fields) == len(names):
                    fields.append("")
                    yield table.line_num, [fields[place] for place in at]
                elif fields:
                    raise UserError(
                        f"{path}:{table.line_num}: expected {len(names)} fields, as in the first line, "
                        f"found {len(fields)}"
                    )
                line = table.line_num + 1
    except UnicodeDecodeError:
        raise UserError(f"{path}:{line}: expected text in UTF-8, found other bytes") from None
    except csv.Error as error:
        raise UserError(f"{path}:{line}: expected delimited text: {error}") from None
    except EOFError:
        raise UserError(
            f"{path}:{line}: truncated: the compressed file ends in the middle of its data"
        ) from None
    except (zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise UserError(f"{path}:{line}: a damaged compressed file: {error}") from None
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


def _lines(stream: IO[bytes]) -> Iterator[str]:
    first = True
    while raw := stream.readline(LINE_BYTES):
        if len(raw) == LINE_BYTES:
            raise csv.Error("a line longer than a megabyte")
        yield raw.decode("utf-8-sig" if first else "utf-8")
        first = False


def _places(path: str, names: list[str], needed: Sequence[str], optional: Sequence[str]) -> list[int]:
    missing = [name for name in needed if name not in names]
    if missing:
        found = ", ".join(repr(name[:40]) for name in names[:16])
        raise UserError(
            f"{path}:1: no column `{missing[0]}`: expected the columns {', '.join(needed)}, found {found}"
        )
    return [names.index(name) if name in names else len(names) for name in (*needed, *optional)]


def identifier(text: str, column: str) -> str:
    """An id as events have it: 1 to 256 characters."""
    if not 0 < len(text) <= 256:
        raise WrongCell(column, "1 to 256 characters", text)
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
