"""Item-kNN: what is clicked in the same visits as the last click, by the cosine of the two listings' visits (Hidasi et al.,
"Session-based recommendations with recurrent neural networks", ICLR 2016, section 4: regularised against coincidences
of listings that are seldom clicked)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.evaluation import rules
from models.evaluation.rules import Rules
from models.evaluation.sequential_rules import ByLast
from models.evaluation.visits import Visits

MOST = 100
"""Of a longer visit so many of its listings count, those clicked most in all."""


@dataclass(frozen=True, slots=True)
class ItemKNN:
    """Similarity is common / sqrt((a + r) (b + r)): the visits with both, with either, and `regularisation`."""

    regularisation: float = 20.0

    def fit(self, visits: Visits) -> ByLast:
        size = len(visits.listings)
        # Each listing once a visit: cells ascend by visit.
        visit, items = np.divmod(np.unique(visits.visit * size + visits.items), size)
        place = np.arange(len(visit)) - np.searchsorted(visit, visit)
        visit, items = visit[place < MOST], items[place < MOST]
        near = [pair for _, *pair in rules.pairs(items, visit, MOST)]
        voters = np.concatenate([items[:0], *(one for one, _ in near), *(other for _, other in near)])
        others = np.concatenate([items[:0], *(other for _, other in near), *(one for one, _ in near)])
        common = rules.summed(voters, others, np.ones(len(voters)), size)
        root = np.sqrt(np.bincount(items, minlength=size) + self.regularisation)
        return ByLast(
            Rules(common.starts, common.others, common.weights / (root[common.rows] * root[common.others]))
        )
