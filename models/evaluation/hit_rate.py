"""Hit rate: how often the target is among the first k (Hidasi et al., "Session-based recommendations with recurrent
neural networks", ICLR 2016, where it is called recall@20: with one target a list the two are the same)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def hits(ranks: npt.ArrayLike, k: int) -> npt.NDArray[np.float64]:
    """1 where the rank (from 1) is at most k, else 0. Their mean is HR@k."""
    return (np.asarray(ranks, np.float64) <= k).astype(np.float64)
