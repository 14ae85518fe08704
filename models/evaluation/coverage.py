"""Catalogue coverage: the share of all listings that are recommended to anybody (Ge, Delgado-Battenfeld and Jannach,
"Beyond accuracy: evaluating recommender systems by coverage and serendipity", RecSys 2010)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def coverage(lists: npt.NDArray[np.int64], size: int) -> float:
    """The share of `size` listings that stand in any of the lists, [p, k], of codes; negative ones are none."""
    return len(np.unique(lists[lists >= 0])) / size
