"""V-SKNN: visits like this one vote for what was clicked in them (Ludewig and Jannach, "Evaluation of session-based
recommendation algorithms", UMUAI 2018).

Of the training visits that share a listing with this one, the newest `sample` are compared. A listing of this visit
weighs its place over the visit's length (its last place, where it was clicked more than once); the similarity is the
sum of the weights of what is shared. The `neighbours` most similar vote, each by its similarity times how recently
the newest shared listing was clicked. With `idf` a vote for a listing counts log(visits / visits with it) times.

That the logarithm is a factor by itself is Serenade's (Kersbergen, Sprangers and Schelter, SIGMOD 2022), whose code
has entries of all visits in the place of visits. The authors' own session-rec has 1 + w idf, with other weights of
places and ages to choose from, and its linear weight lets what is older than ten steps vote against.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.evaluation import rules
from models.evaluation.positions import Positions
from models.evaluation.visits import Visits

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class VSKNN:
    """The settings of the method."""

    neighbours: int = 200
    sample: int = 1000
    idf: bool = True
    linear: bool = True
    """A listing of this visit weighs its place; else each weighs the same."""

    def fit(self, visits: Visits) -> Neighbours:
        return Neighbours(self, visits)


class Neighbours:
    """The training visits, each listing once, numbered from the newest on; scores listings by the votes of the nearest."""

    def __init__(self, settings: VSKNN, visits: Visits) -> None:
        self.settings = settings
        self.size = size = len(visits.listings)
        newest = np.argsort(-visits.times[visits.starts[1:] - 1], kind="stable")
        number = np.empty(len(visits), np.int64)
        number[newest] = np.arange(len(visits))
        visit, item = np.divmod(np.unique(number[visits.visit] * size + visits.items), size)
        self._items = item
        self._starts = np.searchsorted(visit, np.arange(len(visits) + 1))
        by_item = np.argsort(item, kind="stable")
        self._visits = visit[by_item]
        self._places = np.searchsorted(item[by_item], np.arange(size + 1))
        frequency = np.diff(self._places)
        self._idf: Floats = np.log(len(visits) / np.maximum(frequency, 1)) if settings.idf else np.ones(size)
        # Room for one visit's comparison: by training visit, what is shared, and how recently.
        self._similarity = np.zeros(len(visits))
        self._newest = np.zeros(len(visits), np.int64)

    def __call__(self, positions: Positions) -> Floats:
        scores = np.zeros((len(positions), self.size))
        for row, (begin, end) in enumerate(
            zip(positions.begins.tolist(), positions.ends.tolist(), strict=True)
        ):
            if end > begin:
                scores[row] = self._votes(positions.items[begin:end])
        return scores

    def _votes(self, clicked: Ints) -> Floats:
        """The scores, [n], after the clicks, oldest first."""
        places = {item: place for place, item in enumerate(clicked.tolist(), 1)}
        met = []
        for item, place in sorted(places.items(), key=lambda pair: pair[1]):
            start = self._places[item]
            visits = self._visits[start : min(start + self.settings.sample, self._places[item + 1])]
            self._similarity[visits] += place / len(clicked) if self.settings.linear else 1.0
            self._newest[visits] = place
            met.append(visits)
        touched = np.concatenate(met)
        compared = np.unique(touched)[: self.settings.sample]
        similarity, newest = self._similarity[compared], self._newest[compared]
        self._similarity[touched] = 0.0
        nearest = np.argsort(-similarity, kind="stable")[: self.settings.neighbours]
        votes = similarity[nearest] * _decayed(len(clicked) - newest[nearest])
        starts = self._starts[compared[nearest]]
        lengths = self._starts[compared[nearest] + 1] - starts
        at = np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        scores: Floats = rules.totals(self._items[at], np.repeat(votes, lengths), self.size) * self._idf
        return scores


def _decayed(ages: Ints) -> Floats:
    """What a vote weighs whose newest shared listing was clicked so many steps ago: 1 - (age + 1) / 10, at the least 0."""
    weights: Floats = np.maximum(1.0 - 0.1 * (ages + 1.0), 0.0)
    return weights
