"""How sure a mean is: the bootstrap over users.

One user's searches are not independent, so whole users are drawn again, not searches (the cluster bootstrap; Efron
and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 for the percentile interval). What is measured on
the same users is drawn again together, so that differences have their intervals too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

RESAMPLES = 2_000
LEVEL = 0.95
DRAWN = 1 << 22
"""So many draws are held in memory at a time."""

Floats = npt.NDArray[np.float64]


def interval(values: npt.ArrayLike, users: Sequence[str], random: np.random.Generator) -> tuple[float, float]:
    """The percentile interval of the mean of `values`, [n], of which `users` says whose each is.

    Raises ValueError where there are no values.
    """
    names: dict[str, int] = {}
    codes = np.array([names.setdefault(user, len(names)) for user in users], np.int64)
    [pair] = intervals(np.asarray(values, np.float64)[:, None], codes, random)
    return pair


def intervals(
    values: Floats, users: npt.NDArray[np.int64], random: np.random.Generator
) -> list[tuple[float, float]]:
    """The percentile interval of the mean of each column of `values`, [n, m]; `users`, [n], from 0 on, says whose
    each row is. Raises ValueError where there are no values."""
    if not len(values):
        raise ValueError("no values")
    return percentiles(resampled(*sums(values, users), random))


def percentiles(means: Floats) -> list[tuple[float, float]]:
    """Between which values LEVEL of each column of `means`, [samples, m], lie."""
    outside = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(means, [outside, 100 - outside], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def sums(values: Floats, users: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Each user's sum of each column, [u, m], and number of rows, [u], of users who have any."""
    counts = np.bincount(users).astype(np.float64)
    of = np.empty((len(counts), values.shape[1]))
    for column in range(values.shape[1]):
        of[:, column] = np.bincount(users, values[:, column], len(counts))
    some = counts > 0
    return of[some], counts[some]


def resampled(of: Floats, counts: Floats, random: np.random.Generator) -> Floats:
    """The means, [RESAMPLES, m], of so many samples of users drawn with replacement, from the users' `sums`."""
    users, columns = len(counts), np.column_stack([of, counts])
    means = np.empty((RESAMPLES, of.shape[1]))
    block = max(1, min(RESAMPLES, DRAWN // users))
    for start in range(0, RESAMPLES, block):
        samples = min(block, RESAMPLES - start)
        drawn = random.integers(users, size=(samples, users))
        drawn += np.arange(samples)[:, None] * users
        times = np.bincount(drawn.ravel(), minlength=samples * users).reshape(samples, users)
        totals = times.astype(np.float64) @ columns
        means[start : start + samples] = totals[:, :-1] / totals[:, -1:]
    return means
