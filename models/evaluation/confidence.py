"""How sure a mean is: the bootstrap over users.

One user's searches are not independent, so whole users are drawn again, not searches (the cluster bootstrap; Efron
and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 for the percentile interval).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

RESAMPLES = 2_000
LEVEL = 0.95


def interval(values: npt.ArrayLike, users: Sequence[str], random: np.random.Generator) -> tuple[float, float]:
    """The percentile interval of the mean of `values`, [n], of which `users` says whose each is.

    Raises ValueError where there are no values.
    """
    numbers = np.asarray(values, np.float64)
    if not len(numbers):
        raise ValueError("no values")
    names: dict[str, int] = {}
    codes = np.array([names.setdefault(user, len(names)) for user in users], np.int64)
    sums = np.bincount(codes, numbers, len(names))
    counts = np.bincount(codes, minlength=len(names)).astype(np.float64)
    means = np.empty(RESAMPLES)
    for resample in range(RESAMPLES):
        drawn = random.integers(len(names), size=len(names))
        means[resample] = sums[drawn].sum() / counts[drawn].sum()
    outside = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(means, [outside, 100 - outside])
    return float(low), float(high)
