"""Rules by all clicks of the visit: each votes through what was clicked near it in the training visits, the older the less.

Sequential rules (Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", UMUAI 2018)
whose votes go backward too and decay with the click's age, as the weights of a session's items do in V-SKNN.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.evaluation import rules
from models.evaluation.positions import Positions
from models.evaluation.rules import Rules
from models.evaluation.visits import Visits

LEAST = 1e-4
"""A click whose vote weighs less has none."""


@dataclass(frozen=True, slots=True)
class DecayedRules:
    """A vote weighs `decay` to the power of its click's age in steps."""

    decay: float = 0.6
    backward: float = 0.5
    """What being clicked before counts, where being clicked after counts 1; either over the distance."""
    share: bool = True
    """A listing shares one vote out; else it has as many as were counted."""
    itself: bool = True
    """A listing votes for itself too, where it was clicked again."""
    steps: int = 20
    """Clicks up to so many apart count."""

    def fit(self, visits: Visits) -> ByAge:
        counted = rules.counted(visits, self.steps, forward=1.0, backward=self.backward)
        weights, rows = counted.weights, counted.rows
        if not self.itself:
            weights = np.where(rows == counted.others, 0.0, weights)
        if self.share:
            sums = np.bincount(rows, weights, counted.size)[rows]
            weights = weights / np.where(sums > 0, sums, 1.0)
        return ByAge(replace(counted, weights=weights), self.decay)


@dataclass(frozen=True, slots=True)
class ByAge:
    """Scores listings by the decayed votes of all clicks."""

    rules: Rules
    decay: float

    def __call__(self, positions: Positions) -> npt.NDArray[np.float64]:
        position, items, ages = positions.before()
        weights = self.decay ** ages.astype(np.float64)
        heard = weights >= LEAST
        return self.rules.votes(len(positions), position[heard], items[heard], weights[heard])
