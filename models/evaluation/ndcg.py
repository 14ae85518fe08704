"""Normalised discounted cumulative gain (Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques",
ACM TOIS 2002) where one listing alone is relevant: the best list has a gain of 1, so there is nothing to divide by."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def gain(ranks: npt.ArrayLike, k: int) -> npt.NDArray[np.float64]:
    """1 / log2(1 + rank) of each, 0 where it is beyond k; ranks count from 1. Their mean is NDCG@k."""
    numbers = np.asarray(ranks, np.float64)
    return np.where(numbers <= k, 1.0 / np.log2(1.0 + numbers), 0.0)
