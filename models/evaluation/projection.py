"""Embeddings in two dimensions, for a map: what is near in the space is near on it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

MOST = 1_500
"""So many listings, drawn at random where there are more."""

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


def flat(vectors: Floats, random: np.random.Generator) -> tuple[Rows, Floats]:
    """The rows that are shown of unit vectors, [n, d], and their places, float32 [m, 2]; zero vectors have none.

    By t-SNE (van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 2008) from the first two principal
    components: distances within a neighbourhood tell, those between far groups don't.
    """
    rows = np.flatnonzero(vectors.any(axis=1))
    if len(rows) > MOST:
        rows = np.sort(random.choice(rows, MOST, replace=False))
    shown = vectors[rows]
    if len(rows) < 4:
        return rows, np.zeros((len(rows), 2), np.float32)
    tsne = TSNE(perplexity=min(30.0, (len(rows) - 1) / 3), init="pca", random_state=0)
    with threadpool_limits(1):  # more would add up in another order each time
        made = tsne.fit_transform(shown)
    return rows, np.asarray(made, np.float32)
