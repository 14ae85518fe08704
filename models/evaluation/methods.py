"""Every baseline of next-click evaluation, with the few settings that it may have: they are chosen on the last part of
the training visits, and the first stands where these are too few to choose."""

from __future__ import annotations

from itertools import product
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.evaluation.decayed_rules import DecayedRules
from models.evaluation.item_knn import ItemKNN
from models.evaluation.popularity import Popularity, RecentPopularity, SeenFirst
from models.evaluation.positions import Positions
from models.evaluation.sequential_rules import SequentialRules
from models.evaluation.v_sknn import VSKNN
from models.evaluation.visits import Visits


class Scorer(Protocol):
    """Scores all listings at some positions: [b, n], by their codes in the training visits, the higher the better."""

    def __call__(self, positions: Positions, /) -> npt.NDArray[np.floating]: ...


class Method(Protocol):
    """The settings of a way to recommend; a dataclass."""

    def fit(self, visits: Visits) -> Scorer:
        """What is learned of the training visits."""
        ...


BASELINES: dict[str, tuple[Method, ...]] = {
    "popularity": (Popularity(),),
    "recent-popularity": tuple(RecentPopularity(hours) for hours in (24.0, 1.0, 6.0, 168.0)),
    "seen-first": (SeenFirst(),),
    "sequential-rules": tuple(SequentialRules(steps) for steps in (10, 1, 3)),
    "decayed-rules": tuple(
        DecayedRules(decay, backward, share)
        for decay, backward, share in product((0.6, 0.4, 0.8), (0.5, 0.0), (True, False))
    ),
    "item-knn": tuple(ItemKNN(regularisation) for regularisation in (20.0, 0.0, 100.0)),
    "v-sknn": tuple(
        VSKNN(neighbours, sample, idf, linear)
        for (neighbours, sample), idf, linear in product(
            ((200, 1000), (100, 500), (500, 2500)), (True, False), (True, False)
        )
    ),
}
