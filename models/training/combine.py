"""Several bundles' vectors in one: one after the other, and projected to fewer dimensions.

The projection is the truncated singular value decomposition of the matrix of all listings (Eckart and Young, "The
approximation of one matrix by another of lower rank", Psychometrika 1936): of all projections to so many dimensions it
changes the products of the vectors least. Nothing in it is random.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from models.errors import UserError
from models.training.corpus import Corpus
from models.training.run import Floats, Run
from models.training.skip_gram import unit
from models.training.warm_start import vectors_of

PART = 65_536


@dataclass(frozen=True, slots=True)
class Combine:
    """The settings."""

    bundles: str = ""
    """Bundles, or folders of bundles whose `current` is taken, with commas between."""
    dimensions: Annotated[int, Meta(ge=0, le=4096)] = 32
    """To project to; 0 leaves the vectors one after the other."""


def train(corpus: Corpus, settings: Combine, run: Run) -> Floats:
    """Vectors for the n listings of the corpus, float32 [n, d]: of unit length, zeros for those that no bundle knows.

    Each bundle weighs the same; a listing that one of them does not know has the others' part alone. Raises UserError
    where fewer than two bundles are given, one can't be read or was fitted to what is yet to come, or they know no
    listing of the corpus.
    """
    paths = [name.strip() for name in settings.bundles.split(",") if name.strip()]
    if len(paths) < 2:
        raise UserError("combine needs two bundles or more: give --set bundles=FOLDER,FOLDER")
    parts = [vectors_of(Path(path), corpus.listings, run.before) for path in paths]
    whole = np.concatenate(parts, axis=1)
    if settings.dimensions > whole.shape[1]:
        raise UserError(
            f"combine can't make {settings.dimensions} dimensions of {whole.shape[1]}: give --set dimensions=N, no more"
            " than that"
        )
    made = [whole]
    for _ in run.epochs(1, {}, lambda: unit(made[0])):
        if settings.dimensions:
            axes, kept = projection(whole, settings.dimensions)
            made[0] = (whole @ axes).astype(np.float32)
            run.step(1 - kept, 1.0, 1, 1)
            run.metrics["kept"] = kept
    return unit(made[0])


def projection(vectors: Floats, dimensions: int) -> tuple[Floats, float]:
    """The right singular vectors, float32 [D, d], of the greatest singular values of a matrix, [n, D], and the share of
    its squares that they keep; each points to where its largest number is positive."""
    gram: npt.NDArray[np.float64] = np.zeros((vectors.shape[1],) * 2)
    for start in range(0, len(vectors), PART):
        part = vectors[start : start + PART].astype(np.float64)
        gram += part.T @ part
    values, axes = np.linalg.eigh(gram)
    axes = axes[:, ::-1][:, :dimensions]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(dimensions)])
    return axes.astype(np.float32), float(values[::-1][:dimensions].sum() / values.sum())
