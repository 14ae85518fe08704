"""Listings files: parquet, CSV or JSON lines with the fields of a Listing, or a recording of the `listings` topic.

Columns of parquet and CSV that are no field of a Listing are attributes of that name; empty cells say nothing.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from models.errors import UserError
from models.listings import Attribute, Listing
from models.recording import Header, read
from models.training import attribute_columns

FIELDS = Listing.__struct_fields__
INDEX = "__index_level_"
"""Columns that begin so are pandas' row numbers."""


def read_listings(path: Path) -> list[Listing]:
    """The listings of a file, in its order. Raises UserError, with the line or row, where one can't be read or an id
    stands twice (in a recording the last record of an id counts, and one without a value takes it out)."""
    if not path.is_file():
        raise UserError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    if path.suffix == ".parquet":
        return _distinct(path, "row", _parquet(path))
    if ".csv" in path.suffixes[-2:]:
        return _distinct(path, "line", _csv(path))
    if path.name.endswith(".zst") or _is_recording(path):
        return _recording(path)
    if ".jsonl" in path.suffixes[-2:]:
        return _distinct(path, "line", _json_lines(path))
    raise UserError(
        f"{path}: a listings file is .parquet, .csv, .jsonl (the latter two also .gz) or a recording"
    )


def _distinct(path: Path, unit: str, listings: Iterator[tuple[int, Listing]]) -> list[Listing]:
    found: dict[str, Listing] = {}
    for number, listing in listings:
        if listing.listing_id in found:
            raise UserError(f"{path}: {unit} {number}: listing `{listing.listing_id}` stands there twice")
        found[listing.listing_id] = listing
    return list(found.values())


def _parquet(path: Path) -> Iterator[tuple[int, Listing]]:
    import pyarrow as pa  # Nothing else here needs it.
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        columns = [name for name in file.schema_arrow.names if not name.startswith(INDEX)]
        if "listing_id" not in columns:
            raise UserError(f"{path}: no column `listing_id`; it has {', '.join(file.schema_arrow.names)}")
        others = [name for name in columns if name and name not in FIELDS]
        number = 0
        for batch in file.iter_batches(columns=columns):
            for row in batch.to_pylist():
                number += 1
                if isinstance(row["listing_id"], int):
                    row["listing_id"] = str(row["listing_id"])
                if isinstance(row.get("attributes"), list):  # a parquet map comes as pairs
                    row["attributes"] = dict(row["attributes"])
                for name in others:
                    try:
                        value = attribute_columns.of_value(row[name])
                    except ValueError as error:
                        raise UserError(f"{path}: row {number}: column `{name}`: {error}") from None
                    _add(path, f"row {number}", row, name, value)
                yield number, _listing(path, "row", number, row, strict=True)
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        OverflowError,
        KeyError,
    ) as error:  # a cell Python has no value for
        raise UserError(
            f"{path}: not a parquet file that can be read: {str(error).splitlines()[0]}"
        ) from None


def _csv(path: Path) -> Iterator[tuple[int, Listing]]:
    with _text(path) as file:
        try:
            reader = csv.DictReader(file, strict=True)
            if "listing_id" not in (reader.fieldnames or ()):
                raise UserError(
                    f"{path}:1: no column `listing_id`; it has {', '.join(reader.fieldnames or ['none'])}"
                )
            rows: list[tuple[int, dict[str, Any]]] = []
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(
                        f"{path}:{reader.line_num}: not as many cells as the header's {len(reader.fieldnames or ())}"
                    )
                if row.get("attributes"):
                    row["attributes"] = msgspec.json.decode(row["attributes"])
                rows.append((reader.line_num, row))
        except (csv.Error, UnicodeDecodeError, EOFError, OSError, msgspec.DecodeError) as error:
            raise UserError(f"{path}: not CSV in UTF-8 that can be read: {error}") from None
    others = {
        name: attribute_columns.of_texts(row[name] for _, row in rows)
        for name in reader.fieldnames or ()
        if name and name not in FIELDS
    }
    for number, row in rows:
        for name, read_cell in others.items():
            _add(path, f"line {number}", row, name, read_cell(row[name]))
        yield number, _listing(path, "line", number, row, strict=False)


def _add(path: Path, where: str, row: dict[str, Any], name: str, value: Attribute | None) -> None:
    """Add an attribute to those of a row. Raises UserError where its `attributes` have it already."""
    if value is None:
        return
    attributes = row["attributes"] = row.get("attributes") or {}
    if not isinstance(attributes, dict):
        return  # What reads the row says what is wrong with them.
    if name in attributes:
        raise UserError(f"{path}: {where}: column `{name}`: the column `attributes` has a `{name}` too")
    attributes[name] = value


def _json_lines(path: Path) -> Iterator[tuple[int, Listing]]:
    with _text(path) as file:
        try:
            for number, line in enumerate(file, 1):
                try:
                    yield number, msgspec.json.decode(line, type=Listing)
                except msgspec.MsgspecError as error:
                    raise UserError(f"{path}:{number}: not a listing: {error}") from None
        except (UnicodeDecodeError, EOFError, OSError) as error:
            raise UserError(f"{path}: not UTF-8 text that can be read: {error}") from None


def _is_recording(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            msgspec.json.decode(file.readline(100_000), type=Header)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
    return True


def _recording(path: Path) -> list[Listing]:
    header, records = read(path)
    found: dict[bytes | None, Listing] = {}
    for number, record in enumerate(records, 2):
        found.pop(record.key, None)
        if record.value is None:
            continue
        try:
            listing = msgspec.json.decode(record.value, type=Listing)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UserError(f"{path}:{number}: not a listing, on topic `{header.topic}`: {error}") from None
        if record.key != listing.listing_id.encode():
            raise UserError(f"{path}:{number}: the record's key is not its listing id")
        found[record.key] = listing
    return list(found.values())


def _text(path: Path) -> Any:
    """The file as text, decompressed where its name ends with .gz."""
    opened = gzip.open if path.suffix == ".gz" else open
    return opened(path, "rt", encoding="utf-8-sig", newline="")


def _listing(path: Path, unit: str, number: int, row: dict[str, Any], *, strict: bool) -> Listing:
    said = {name: row[name] for name in FIELDS if row.get(name) not in (None, "")}
    try:
        return msgspec.convert(said, Listing, strict=strict)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {unit} {number}: {error}") from None
