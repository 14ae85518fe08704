"""Vectors to start from: another bundle's, by listing id."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models import bundle as bundle_
from models.bundle import Bundle
from models.errors import UserError
from models.listings import Listings
from models.training.corpus import Floats


def fitted_before(path: Path, known: Bundle, before: int | None) -> None:
    """Raises UserError where a bundle's vectors were fitted to events that what is made of them is to be held against:
    those from the time `before` (ms) on."""
    until = known.manifest.training.embeddings_until
    if before is not None and until is not None and until > before:
        raise UserError(
            f"{path}: its vectors were fitted to events up to {until} ms, and what is from {before} ms on must be new to"
            " them, for validation or for the ranker; train it with an earlier --until, or leave --validation out"
        )


def aligned(path: Path, listings: Listings, dimensions: int, before: int | None) -> Floats:
    """The bundle's vectors for the listings that it knows, float32 [n, d], zeros for others.

    Raises UserError where it can't be read, has other dimensions, was fitted to what is from the time `before` (ms) on,
    or knows none of the listings.
    """
    known = bundle_.load(path)
    size = known.vectors.shape[1]
    if size != dimensions:
        raise UserError(
            f"--warm-start {path}: its vectors have {size} dimensions, and {dimensions} are to be learned; give"
            f" --dimensions {size}"
        )
    fitted_before(path, known, before)
    found = np.zeros((len(listings), size), np.float32)
    for row, name in enumerate(listings.ids):
        if (at := known.row.get(name)) is not None:
            found[row] = known.vectors[at]
    if not found.any():
        raise UserError(f"--warm-start {path}: no listing here has a vector in it")
    return found
