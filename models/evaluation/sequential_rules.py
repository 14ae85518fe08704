"""Rules by the last click: what was clicked soon after it in the training visits (SR; Ludewig and Jannach, "Evaluation of
session-based recommendation algorithms", UMUAI 2018: a rule weighs 1 / distance)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.evaluation import rules
from models.evaluation.positions import Positions
from models.evaluation.rules import Rules
from models.evaluation.visits import Visits


@dataclass(frozen=True, slots=True)
class SequentialRules:
    """Clicks up to `steps` after another count."""

    steps: int = 10

    def fit(self, visits: Visits) -> ByLast:
        return ByLast(rules.counted(visits, self.steps, forward=1.0, backward=0.0))


@dataclass(frozen=True, slots=True)
class ByLast:
    """Scores listings by the votes of the last click."""

    rules: Rules

    def __call__(self, positions: Positions) -> npt.NDArray[np.float64]:
        last = positions.last()
        some = np.flatnonzero(last >= 0)
        return self.rules.votes(len(positions), some, last[some], np.ones(len(some)))
