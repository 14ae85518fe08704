"""Lists of the best: the k listings of the highest scores, and where in them the target is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.evaluation.positions import NOTHING

TINY = 1e-30
"""Zeros are told apart by less than any score."""

Ints = npt.NDArray[np.int64]


def best(scores: npt.NDArray[np.floating], k: int) -> Ints:
    """The columns of the k highest of each row, [b, min(k, n)], best first; `scores` is [b, n], without NaN.

    Of equal scores the lower column is the better one. What is scored -inf is never listed: NOTHING stands there.
    """
    size = scores.shape[1]
    k = min(k, size)
    if not k or not len(scores):
        return np.empty((len(scores), k), np.int64)
    # Most scores of a sparse method are zeros, and many equals make a partition slow.
    scores = np.where(scores == 0, -TINY * np.arange(1, size + 1, dtype=scores.dtype), scores)
    edge = np.partition(scores, size - k, axis=1)[:, size - k, None]
    listed = scores >= edge
    crowded = np.flatnonzero(np.count_nonzero(listed, axis=1) > k)
    if len(crowded):
        above, equal = scores[crowded] > edge[crowded], scores[crowded] == edge[crowded]
        room = k - np.count_nonzero(above, axis=1)
        listed[crowded] = above | (equal & (np.cumsum(equal, axis=1) <= room[:, None]))
    columns = np.nonzero(listed)[1].reshape(-1, k)
    values = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    columns = np.take_along_axis(columns, order, axis=1)
    columns[np.isneginf(np.take_along_axis(values, order, axis=1))] = NOTHING
    return columns


def ranks(lists: Ints, targets: Ints) -> npt.NDArray[np.float64]:
    """The rank of each target in its list, from 1; infinity where it is not listed. `lists` is [p, k], `targets` [p]."""
    hit = lists == targets[:, None]
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1.0, np.inf)
