"""Popularity bias: how popular, on average, what is recommended is (Ludewig and Jannach, "Evaluation of session-based
recommendation algorithms", UMUAI 2018): a listing's popularity is its clicks over the most popular one's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def popularity(lists: npt.NDArray[np.int64], counts: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The mean popularity, 0 to 1, of each of the lists, [p, k], of codes; negative ones are none, an empty list has 0.

    `counts` are the training's clicks by code.
    """
    numbers = np.asarray(counts, np.float64)
    listed = lists >= 0
    of = np.where(listed, (numbers / numbers.max())[lists], 0.0)
    sums: npt.NDArray[np.float64] = of.sum(axis=1) / np.maximum(listed.sum(axis=1), 1)
    return sums
