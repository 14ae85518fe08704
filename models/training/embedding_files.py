"""Embeddings somebody already has: parquet, npz or word2vec's text format.

parquet  a column `listing_id` (or `id`), and the list column `vector`, or else a column of numbers for each dimension
npz      arrays `ids` and `vectors`
others   word2vec text: a first line with count and dimensions, then lines of an id and its numbers
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models import ranker
from models.bundle import Bundle, Training, assemble
from models.errors import UserError
from models.listings import Listing, collect

Floats = npt.NDArray[np.float32]
IDS = ("listing_id", "id")
VECTOR = "vector"
LONGEST_ID = 256


def read_embeddings(path: Path) -> tuple[list[str], Floats]:
    """The ids and their vectors, float32 [n, d], of unit length.

    Raises UserError, with the line or row, where the file can't be read, a vector has another dimension than the
    first, is not finite or zero, or an id stands twice.
    """
    if not path.is_file():
        raise UserError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    if path.suffix == ".parquet":
        unit, first, (ids, vectors) = "row", 1, _parquet(path)
    elif path.suffix == ".npz":
        unit, first, (ids, vectors) = "row", 1, _npz(path)
    else:
        unit, first, (ids, vectors) = "line", 2, _word2vec(path)
    if not ids or not vectors.shape[1]:
        raise UserError(f"{path}: no embeddings in it")
    with np.errstate(over="ignore", invalid="ignore"):
        wide = vectors.astype(np.float64)
        lengths = np.linalg.norm(wide, axis=1)
    # What is longer or shorter than this is an accident, and would not survive the arithmetic.
    wrong = np.flatnonzero(~((lengths > 1e-18) & (lengths < 1e18)))
    if len(wrong):
        row = int(wrong[0])
        what = "is zero" if lengths[row] <= 1e-18 else "has a number that is not finite (NaN or infinite)"
        raise UserError(f"{path}: {unit} {row + first}: the vector of `{ids[row]}` {what}")
    known: set[str] = set()
    for row, listing_id in enumerate(ids):
        if not 0 < len(listing_id) <= LONGEST_ID:
            raise UserError(f"{path}: {unit} {row + first}: an id must have 1 to {LONGEST_ID} characters")
        if listing_id in known:
            raise UserError(f"{path}: {unit} {row + first}: the id `{listing_id}` stands there twice")
        known.add(listing_id)
    return ids, (wide / lengths[:, None]).astype(np.float32)


def _parquet(path: Path) -> tuple[list[str], Floats]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path}: not a parquet file that can be read: {str(error).splitlines()[0]}"
        ) from None
    names = table.column_names
    key = next((name for name in IDS if name in names), None)
    if key is None:
        raise UserError(f"{path}: no column `listing_id` or `id`; it has {', '.join(names)}")
    ids = [str(value) if value is not None else "" for value in table[key].to_pylist()]
    if VECTOR not in names:
        return ids, _number_columns(path, table, key)
    kind = table.schema.field(VECTOR).type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise UserError(f"{path}: column `{VECTOR}` must hold lists of numbers, and holds {kind}")
    if not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise UserError(f"{path}: column `{VECTOR}` must hold lists of numbers, and holds {kind}")
    column = table[VECTOR].combine_chunks()
    sizes = np.nan_to_num(pc.list_value_length(column).to_numpy(zero_copy_only=False)).astype(np.int64)
    _same_sizes(path, "row", 1, ids, sizes)
    numbers = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return ids, numbers.reshape(len(ids), -1) if len(ids) else np.empty((0, 0), np.float32)


def _number_columns(path: Path, table: pa.Table, key: str) -> Floats:
    columns = [
        table[field.name].to_numpy().astype(np.float32)
        for field in table.schema
        if field.name != key and (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))
    ]
    if not columns:
        raise UserError(f"{path}: neither a column `{VECTOR}` nor columns of numbers")
    return np.stack(columns, axis=1)


def _npz(path: Path) -> tuple[list[str], Floats]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            missing = [name for name in ("ids", "vectors") if name not in arrays]
            if missing:
                raise UserError(
                    f"{path}: no array `{missing[0]}`; it has {', '.join(arrays.files) or 'none'}"
                )
            ids, vectors = arrays["ids"], arrays["vectors"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not an .npz file that can be read without pickles: {error}") from None
    if ids.ndim != 1 or ids.dtype.kind not in "Uiu":
        raise UserError(
            f"{path}: `ids` must be a list of strings or whole numbers, and is {ids.dtype} {ids.shape}"
        )
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: `vectors` must be numbers of shape (n, d), and is {vectors.dtype} {vectors.shape}"
        )
    if len(ids) != len(vectors):
        raise UserError(f"{path}: {len(ids)} ids, but {len(vectors)} vectors")
    with np.errstate(over="ignore"):
        return [str(listing_id) for listing_id in ids.tolist()], vectors.astype(np.float32)


def _word2vec(path: Path) -> tuple[list[str], Floats]:
    ids: list[str] = []
    rows: list[Floats] = []
    try:
        with path.open(encoding="utf-8") as file:
            head = file.readline().split()
            if len(head) != 2 or not all(part.isdecimal() for part in head) or head[1] == "0":
                raise UserError(f"{path}:1: not word2vec text: its first line must be `COUNT DIMENSIONS`")
            count, dimensions = map(int, head)
            for number, line in enumerate(file, 2):
                # An id may have spaces in it, so the numbers are counted from the end.
                listing_id, *numbers = line.rstrip().rsplit(" ", dimensions)
                try:
                    row = np.array(numbers, np.float32)
                except ValueError:
                    row = np.empty(0, np.float32)
                if len(row) != dimensions or (" " in listing_id and _number(listing_id.rsplit(" ", 1)[1])):
                    raise UserError(f"{path}:{number}: not an id and {dimensions} numbers")
                ids.append(listing_id)
                rows.append(row)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (word2vec's binary format is not read): {error}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    if len(ids) != count:
        raise UserError(f"{path}: {len(ids)} embeddings, but its first line says {count}: truncated?")
    return ids, np.stack(rows) if rows else np.empty((0, 0), np.float32)


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _same_sizes(path: Path, unit: str, first: int, ids: Sequence[str], sizes: npt.NDArray[np.int64]) -> None:
    wrong = np.flatnonzero(sizes != sizes[:1])
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"{path}: {unit} {row + first}: the vector of `{ids[row]}` has {sizes[row]} numbers, the first has {sizes[0]}"
        )


def bundle(ids: Sequence[str], vectors: Floats, known: Sequence[Listing]) -> tuple[Bundle, int]:
    """A bundle, in memory, of unit vectors [n, d] and what is known of listings, with the default ranker; and how many
    of the vectors are of a known listing. A listing without a vector has zeros."""
    rows = {listing.listing_id: listing for listing in known}
    matched = sum(listing_id in rows for listing_id in ids)
    rows |= {listing_id: Listing(listing_id=listing_id) for listing_id in ids if listing_id not in rows}
    listings = collect(rows[listing_id] for listing_id in sorted(rows))
    matrix = np.zeros((len(listings), vectors.shape[1]), np.float32)
    matrix[[listings.row[listing_id] for listing_id in ids]] = vectors
    data = hashlib.sha256(matrix.tobytes() + listings.encode()).hexdigest()
    training = Training(source="embeddings", data=data, metrics={"matched": matched})
    return assemble(listings=listings, vectors=matrix, ranker=ranker.default(), training=training), matched
