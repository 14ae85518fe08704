"""Any table of events, in CSV or parquet, by naming its columns.

Fields are an event's (`listing_id`, `user_id`, `timestamp`, and where the table has them `type`, `event_id`,
`search_id`, `market`), `session`, and of the listing its `price` and `attributes.NAME`. A row is an event: a click,
unless its type says otherwise. Cells of CSV are separated by commas, semicolons, tabs or bars: by what makes all named
columns appear in the first line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from models import sessions
from models.datasets import tabular
from models.datasets.importing import Entry
from models.datasets.seen import Seen
from models.datasets.tabular import WrongCell, identifier
from models.errors import UserError

NEEDED = ("listing_id", "user_id", "timestamp")
FIELDS = (*NEEDED, "type", "session", "search_id", "market", "price", "event_id")
"""... and `attributes.` with a name, of the listing."""
ATTRIBUTE = "attributes."
KINDS: dict[str, type[Any]] = {kind: event for event, kind in sessions.KINDS.items()}
NONE = "none"
"""In place of a kind: rows of this type are left out."""
DELIMITERS = (",", ";", "\t", "|")
Unit = Literal["seconds", "milliseconds", "iso"]
UNITS: tuple[Unit, ...] = get_args(Unit)
SECONDS_BELOW, MILLISECONDS_BELOW = 1e11, 1e14
"""A number below the first is taken for seconds (until the year 5138), one below the second for milliseconds (since 1973)."""


def named(pairs: Sequence[str]) -> dict[str, str]:
    """The columns by field, of `FIELD=COLUMN` each. Raises UserError for no such field, and where one is missing."""
    columns: dict[str, str] = {}
    for pair in pairs:
        field, equals, column = pair.partition("=")
        if not (equals and column and (field in FIELDS or field.removeprefix(ATTRIBUTE) not in ("", field))):
            raise UserError(
                f"--column {pair}: expected FIELD=COLUMN, the field one of {', '.join(FIELDS)}, {ATTRIBUTE}NAME"
            )
        if field in columns:
            raise UserError(f"--column {pair}: `{field}` is `{columns[field]}` already")
        columns[field] = column
    for field in NEEDED:
        if field not in columns:
            raise UserError(f"import columns: name the column of `{field}` with --column {field}=COLUMN")
    return columns


def tells_of_listings(field: str) -> bool:
    """Whether a field says something of the listing, beyond the event."""
    return field in ("market", "price") or field.startswith(ATTRIBUTE)


def meant(pairs: Sequence[str]) -> dict[str, str]:
    """The kinds by what the file calls them, of `VALUE=KIND` each, beside our own names. Raises UserError for no such kind."""
    kinds = {kind: kind for kind in KINDS}
    for pair in pairs:
        value, equals, kind = pair.rpartition("=")
        if not equals or kind not in (*KINDS, NONE):
            raise UserError(f"--type {pair}: expected VALUE=KIND, the kind one of {', '.join(KINDS)}, {NONE}")
        kinds[value] = kind
    return kinds


def events(
    paths: Sequence[str],
    columns: Mapping[str, str],
    kinds: Mapping[str, str],
    unit: Unit | None,
    skipped: Counter[str],
    seen: Seen,
) -> Iterator[Entry]:
    """The events of the files, in the files' order, and their sessions. Adds to `skipped` and `seen`.

    `unit` is that of the times; where it is None each file's first row tells it, and timestamps of parquet have their own. Event ids are the row's number over
    all files where no column has them. Raises UserError with file, line (in parquet row) and column.
    """
    row = 0
    names = list(columns.values())
    for path in paths:
        known = unit
        table = (
            _parquet(path, names, columns["timestamp"])
            if _is_parquet(path)
            else ((line, cells, None) for line, cells in _text(path, names))
        )
        for line, cells, own in table:
            row += 1
            said = dict(zip(columns, cells, strict=True))
            try:
                known = own or known or _unit(said["timestamp"], columns["timestamp"])
                entry = _event(f"{row:09d}", said, columns, kinds, known, skipped, seen)
            except WrongCell as error:
                raise UserError(f"{path}:{line}: {error}") from None
            if entry is not None:
                yield entry


def _event(
    name: str,
    said: Mapping[str, str],
    columns: Mapping[str, str],
    kinds: Mapping[str, str],
    unit: Unit,
    skipped: Counter[str],
    seen: Seen,
) -> Entry | None:
    value = said.get("type", "click")
    kind = kinds.get(value)
    if kind is None:
        raise WrongCell(columns["type"], f"{', '.join(kinds)}, or what --type says is one of them", value)
    if kind == NONE:
        skipped[f"{value}: {NONE} of the kinds"] += 1
        return None
    item = identifier(said["listing_id"], columns["listing_id"])
    market = said.get("market")
    event = KINDS[kind](
        event_id=identifier(said["event_id"], columns["event_id"]) if "event_id" in said else name,
        user_id=tabular.user(said["user_id"], columns["user_id"]),
        timestamp=_time(said["timestamp"], columns["timestamp"], unit),
        listing_id=item,
        market=identifier(market, columns["market"]) if market else None,
        search_id=identifier(said["search_id"], columns["search_id"]) if said.get("search_id") else None,
    )
    seen.listings.add(item)
    if market:
        seen.markets[item, market] += 1
    price = tabular.price(said.get("price", ""), columns.get("price", ""))
    if price is not None:
        seen.price(item, event.timestamp, price)
    for field, text in said.items():
        if field.startswith(ATTRIBUTE) and text:
            seen.attributes.setdefault(item, {})[field.removeprefix(ATTRIBUTE)] = text
    return event, said.get("session") or None


def _unit(text: str, column: str) -> Unit:
    """What a time looks like."""
    try:
        amount = abs(float(text))
    except ValueError:
        tabular.iso(text, column)
        return "iso"
    if amount < SECONDS_BELOW:
        return "seconds"
    if amount < MILLISECONDS_BELOW:
        return "milliseconds"
    raise WrongCell(
        column, "seconds or milliseconds since 1970 (not micro- or nanoseconds) or ISO times", text
    )


def _time(text: str, column: str, unit: Unit) -> int:
    if unit == "iso":
        return tabular.iso(text, column)
    if unit == "seconds":
        try:
            return tabular.milliseconds(text, column)
        except WrongCell:
            raise WrongCell(column, "seconds since 1970 (or name the unit with --time)", text) from None
    if text.isdigit():
        return tabular.whole(text, column, "milliseconds since 1970 (or name the unit with --time)")
    time = round(tabular.number(text, column))
    if not 0 <= time <= tabular.LAST_MS:
        raise WrongCell(column, "milliseconds since 1970 (or name the unit with --time)", text)
    return time


def _text(path: str, names: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    for delimiter in DELIMITERS:
        if set(names).issubset(tabular.header(path, delimiter=delimiter)):
            return tabular.rows(path, names, delimiter=delimiter)
    return tabular.rows(path, names)  # ... which says what is missing


def _is_parquet(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) == tabular.PARQUET
    except OSError:
        return False  # What reads it as text says why it can't be read.


def _parquet(path: str, names: Sequence[str], time: str) -> Iterator[tuple[int, list[str], Unit | None]]:
    """The cells of a parquet file as text, with the row's number from 1; times as milliseconds, nulls as nothing.

    With each row the unit of the column `time`, where its type tells it.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"{path}: parquet needs pyarrow: pip install 'insession[train]'") from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            found = file.schema_arrow.names
            for name in names:
                if name not in found:
                    raise UserError(f"{path}:1: no column `{name}`: found {', '.join(map(repr, found[:16]))}")
            own: Unit | None = "milliseconds" if _is_time(file.schema_arrow.field(time).type) else None
            for batch in file.iter_batches(columns=list(dict.fromkeys(names))):
                for cells in zip(*(_cells(batch[name]) for name in names), strict=True):
                    number += 1
                    yield number, list(cells), own
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path}:{number + 1}: parquet that can't be read: {' '.join(str(error).split())}"
        ) from None


def _cells(column: Any) -> list[str]:
    import pyarrow as pa

    if _is_time(column.type):
        column = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
    return [_cell(value) for value in column.to_pylist()]


def _is_time(kind: Any) -> bool:
    """Whether a column of this Arrow type knows its unit."""
    import pyarrow as pa

    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _cell(value: Any) -> str:
    """A cell as text. Whole numbers that became floats, as beside nulls in pandas, are whole again."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
