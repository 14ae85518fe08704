"""Whether two methods differ: the paired randomisation test (Smucker, Allan and Carterette, "A comparison of statistical
significance tests for information retrieval evaluation", CIKM 2007), whole visits exchanged between the two, since the
targets of one visit are not independent."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

EXCHANGES = 10_000
DRAWN = 1 << 22
"""So many signs are held in memory at a time."""


def p_values(differences: npt.NDArray[np.float64], random: np.random.Generator) -> list[float]:
    """The two-sided p-value of each column of `differences`, [visits, m]: each visit's sum of differences.

    Under the null hypothesis the two methods could as well have been the other way round on any visit. With B
    exchanges the smallest p-value is 1 / (B + 1) (Davison and Hinkley, "Bootstrap Methods and their Application",
    1997).
    """
    visits, columns = differences.shape
    found = np.abs(differences.sum(axis=0))
    as_far = np.zeros(columns, np.int64)
    block = max(1, min(EXCHANGES, DRAWN // max(visits, 1)))
    for start in range(0, EXCHANGES, block):
        size = min(block, EXCHANGES - start)
        signs = 2.0 * random.integers(0, 2, (size, visits), np.int8) - 1.0
        as_far += (np.abs(signs @ differences) >= found - 1e-9).sum(axis=0)
    return [float(number) for number in (as_far + 1) / (EXCHANGES + 1)]
