"""Vectors of other bundles, by listing id: to start from, or to combine."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from models import bundle as bundle_
from models.errors import UserError
from models.listings import Listings
from models.training.corpus import Floats


def vectors_of(path: Path, listings: Listings, before: int | None) -> Floats:
    """A bundle's vectors for the listings that it knows, float32 [n, d], zeros for others.

    Raises UserError where it can't be read, knows none of the listings, or was fitted to events from the time `before`
    (ms) on: what is made of its vectors is to be held against those.
    """
    known = bundle_.load(path)
    until = known.manifest.training.embeddings_until
    if before is not None and until is not None and until > before:
        raise UserError(
            f"{path}: its vectors were fitted to events up to {_date(until)}, and what is from {_date(before)} on must be"
            " new to them: it is left for validation, for the ranker, or for what comes after --until; train it with an"
            " earlier --until"
        )
    found = np.zeros((len(listings), known.vectors.shape[1]), np.float32)
    for row, name in enumerate(listings.ids):
        if (at := known.row.get(name)) is not None:
            found[row] = known.vectors[at]
    if not found.any():
        raise UserError(f"{path}: no listing here has a vector in this bundle")
    return found


def _date(time: int) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).isoformat(timespec="milliseconds")


def aligned(path: Path, listings: Listings, dimensions: int, before: int | None) -> Floats:
    """The vectors to start from, float32 [n, d]; see `vectors_of`. Raises UserError where they have other dimensions too."""
    found = vectors_of(path, listings, before)
    if found.shape[1] != dimensions:
        raise UserError(
            f"--warm-start {path}: its vectors have {found.shape[1]} dimensions, and {dimensions} are to be learned; give"
            f" --dimensions {found.shape[1]}"
        )
    return found
