"""Mean reciprocal rank of the chosen listing (Voorhees, "The TREC-8 question answering track report", 1999)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def reciprocal(ranks: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """1 / rank of each; ranks count from 1. Their mean is the MRR."""
    return 1.0 / np.asarray(ranks, np.float64)
