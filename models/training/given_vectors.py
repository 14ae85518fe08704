"""Vectors of listings that come from elsewhere, as of an image or a text: from a file, or an attribute of the listings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.errors import UserError
from models.listings import Attribute, Listings
from models.training.corpus import Floats
from models.training.embedding_files import read_embeddings


def of_file(path: Path, listings: Listings) -> Floats:
    """float32 [n, f]: of unit length, zeros for a listing that the file has none for; see `embedding_files`.

    Raises UserError where the file can't be read, or knows none of the listings.
    """
    ids, vectors = read_embeddings(path)
    found = np.zeros((len(listings), vectors.shape[1]), np.float32)
    for row, listing_id in enumerate(ids):
        if (at := listings.row.get(listing_id)) is not None:
            found[at] = vectors[row]
    if not found.any():
        raise UserError(
            f"{path}: none of its ids, like `{ids[0]}`, is a listing here, like `{listings.ids[0]}`"
        )
    return found


def of_attribute(name: str, listings: Listings) -> Floats:
    """float32 [n, f]: of unit length, zeros for a listing without; from an attribute that holds numbers, as a list of
    texts or as one text with spaces or commas between.

    Raises UserError where no listing has it, or one's is not as many finite numbers as the first's.
    """
    found: Floats | None = None
    for row, listing_id in enumerate(listings.ids):
        value = listings.attributes(row).get(name)
        if value is None:
            continue
        vector = _numbers(value)
        size = len(vector) if found is None else found.shape[1]
        if not size or len(vector) != size or not np.isfinite(vector).all():
            raise UserError(
                f"listing `{listing_id}`: its attribute `{name}` must hold"
                f' {size if found is not None else "some"} finite numbers, as in "0.5 -1 2"'
            )
        if found is None:
            found = np.zeros((len(listings), size), np.float32)
        length = float(np.linalg.norm(vector))
        found[row] = vector / (length if length > 0 else 1)
    if found is None:
        raise UserError(f"no listing has an attribute `{name}`")
    return found


def _numbers(value: Attribute) -> Floats:
    """The numbers of an attribute; none where it is something else."""
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        return np.empty(0, np.float32)
    try:
        return np.array([float(part) for part in parts], np.float32)
    except ValueError:
        return np.empty(0, np.float32)
