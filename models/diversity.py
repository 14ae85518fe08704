"""Lists whose neighbours are not all alike: maximal marginal relevance.

Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
Summaries", SIGIR 1998.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

PLACES = 50
"""Places that are filled so; those below keep their order."""

Floats = npt.NDArray[np.float32]


def diversify(
    scores: Floats, vectors: Floats, diversity: float, places: int = PLACES
) -> npt.NDArray[np.intp]:
    """The new order, indices [n], of a list that stands by descending `scores`, [n], with unit `vectors`, [n, d].

    Each of the first `places` goes to what has the most of (1 - diversity) * score - diversity * similarity, where
    scores are scaled to 0..1 within the list, and the similarity is the greatest to anything above. Of equals the
    one that stood higher comes first.
    """
    size = len(scores)
    spread = scores.max() - scores.min() if size else 0.0
    left = (scores - scores.min()) / spread if spread > 0 else np.zeros(size, np.float32)
    left *= 1 - diversity
    nearest = np.zeros(size, np.float32)
    chosen: list[int] = []
    for _ in range(min(places, size)):
        best = int((left - diversity * nearest).argmax())
        left[best] = -np.inf
        similarities = vectors @ vectors[best]
        nearest = np.maximum(nearest, similarities) if chosen else similarities
        chosen.append(best)
    rest = np.flatnonzero(left > -np.inf)
    return np.concatenate([np.array(chosen, np.intp), rest])
