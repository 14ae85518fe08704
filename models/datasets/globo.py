"""Clicks of the news portal Globo.com, as published: in parquet, or the hourly files in CSV; times in milliseconds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.datasets.importing import Entry
from models.datasets.tabular import LAST_MS, PARQUET, WrongCell
from models.errors import UserError
from models.events import Click

COLUMNS = ("user_id", "session_id", "click_article_id", "click_timestamp")
ROWS = 1 << 16
"""Rows turned into Python's numbers at a time."""

Whole = NDArray[np.int64]


def events(paths: Sequence[str]) -> Iterator[Entry]:
    """A click for each row of all files, in event-time order, those of one millisecond in the files' order.

    Event ids are the row's number over all files. Holds five numbers a row in memory. Raises UserError with file,
    row and column.
    """
    columns = [np.concatenate(parts) for parts in zip(*[_read(path) for path in paths], strict=True)]
    order = np.argsort(columns[3], kind="stable")
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        lists = [column[rows].tolist() for column in columns]
        for row, user, session, article, time in zip((rows + 1).tolist(), *lists, strict=True):
            yield (
                Click(event_id=f"{row:09d}", user_id=str(user), timestamp=time, listing_id=str(article)),
                str(session),
            )


def _read(path: str) -> list[Whole]:
    """The four columns of one file."""
    try:
        import pyarrow as pa
        from pyarrow import csv, parquet
    except ImportError:
        raise UserError("reading this format needs pyarrow: pip install 'insession[train]'") from None
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
        if not magic:
            raise UserError(f"{path}: an empty file; expected the columns {', '.join(COLUMNS)}")
        if magic == PARQUET:
            names = parquet.read_schema(path).names
            _check(path, names)
            table = parquet.read_table(path, columns=list(COLUMNS))
            first = 1
        else:
            with csv.open_csv(path, read_options=csv.ReadOptions(use_threads=False)) as reader:
                _check(path, reader.schema.names)
            table = csv.read_csv(
                path,
                read_options=csv.ReadOptions(use_threads=False),
                convert_options=csv.ConvertOptions(
                    include_columns=list(COLUMNS), column_types=dict.fromkeys(COLUMNS, pa.string())
                ),
            )
            first = 2
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or ' '.join(str(error).split())}") from None
    except pa.ArrowException as error:
        raise UserError(f"{path}: not a parquet file, nor CSV: {' '.join(str(error).split())}") from None
    return [_whole(path, first, name, table[name]) for name in COLUMNS]


def _check(path: str, names: Sequence[str]) -> None:
    for name in COLUMNS:
        if name not in names:
            found = ", ".join(repr(found[:40]) for found in names[:16])
            raise UserError(
                f"{path}:1: no column `{name}`: expected the columns {', '.join(COLUMNS)}, found {found}"
            )


def _whole(path: str, first: int, name: str, column: Any) -> Whole:
    """The numbers of an arrow column. `first` is what the first row is called in errors: its line where it is text."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms"))
    if not _is_whole(column):
        rows = range(1, len(column) + 1)
        wrong = bisect_left(rows, True, key=lambda number: not _is_whole(column.slice(0, number)))
        raise UserError(f"{path}:{first + wrong}: {WrongCell(name, 'a whole number', column[wrong].as_py())}")
    numbers: Whole = column.cast(pa.int64()).to_numpy()
    outside = (numbers < 0) | (numbers > LAST_MS)
    if name == "click_timestamp" and outside.any():
        wrong, expected = int(outside.argmax()), "milliseconds since 1970, up to the year 9999"
        raise UserError(f"{path}:{first + wrong}: {WrongCell(name, expected, int(numbers[wrong]))}")
    return numbers


def _is_whole(column: Any) -> bool:
    """Whether all of an arrow column are whole numbers of 64 bits."""
    import pyarrow as pa

    try:
        column.cast(pa.int64())
    except pa.ArrowException:
        return False
    return not column.null_count
