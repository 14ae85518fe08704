"""Mean reciprocal rank of the chosen listing (Voorhees, "The TREC-8 question answering track report", 1999)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def reciprocal(ranks: npt.ArrayLike, k: float = np.inf) -> npt.NDArray[np.float64]:
    """1 / rank of each, 0 where it is beyond k; ranks count from 1. Their mean is the MRR, or MRR@k."""
    numbers = np.asarray(ranks, np.float64)
    return np.where(numbers <= k, 1.0 / numbers, 0.0)
