"""What was clicked most: the same list for everybody; and what was clicked in the visit before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.evaluation import rules
from models.evaluation.positions import Positions
from models.evaluation.visits import Visits

HOUR = 3_600_000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Popularity:
    """By clicks in the training visits."""

    def fit(self, visits: Visits) -> Constant:
        return Constant(visits.counts.astype(np.float64))


@dataclass(frozen=True, slots=True)
class RecentPopularity:
    """By clicks of which half are left after `half_life_hours`, counted back from when the last training visit began:
    from the last click of all, one visit that went on for days would decide alone."""

    half_life_hours: float = 24.0

    def fit(self, visits: Visits) -> Constant:
        began = visits.times[visits.starts[-2]]
        ages = np.maximum(began - visits.times, 0) / (self.half_life_hours * HOUR)
        return Constant(rules.totals(visits.items, 0.5**ages, len(visits.listings)))


@dataclass(frozen=True, slots=True)
class SeenFirst:
    """What was clicked in the visit, the most recent first; the rest by clicks in the training visits."""

    def fit(self, visits: Visits) -> Recent:
        return Recent(visits.counts / (visits.counts.max() + 1.0))


@dataclass(frozen=True, slots=True)
class Constant:
    """Scores listings alike at all positions."""

    scores: Floats

    def __call__(self, positions: Positions) -> Floats:
        return np.tile(self.scores, (len(positions), 1))


@dataclass(frozen=True, slots=True)
class Recent:
    """Scores listings by how recently they were clicked in the visit: above `others`, which are below 1."""

    others: Floats

    def __call__(self, positions: Positions) -> Floats:
        scores = np.tile(self.others, (len(positions), 1))
        position, items, ages = positions.before()
        longest = float(ages.max(initial=0)) + 1.0
        np.maximum.at(scores, (position, items), 1.0 + (longest - ages) / longest)
        return scores
