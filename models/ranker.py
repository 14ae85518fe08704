"""Features -> score: an additive model whose every part can be read.

The score of a candidate is the sum of one contribution for each feature; a contribution is a piecewise linear
function of that feature alone, given by its value at each of the feature's knots. (Hastie and Tibshirani,
"Generalized Additive Models", 1986.)
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from models import _kernel
from models._kernel import Candidates, Profile
from models.features import (
    BOOKED,
    CLICKED,
    FEATURES,
    FREQUENCY,
    INQUIRED,
    KNOTS,
    NAMES,
    POSITION,
    RECENCY,
    RECENCY_OUTSIDE,
    SIMILARITY,
    WISHLISTED,
    Floats,
    Rows,
)
from models.space import Space

DECIMALS = 6

_LOW = np.array([feature.low for feature in FEATURES], np.float32)
_PER_STEP = np.array([1 / feature.step for feature in FEATURES], np.float32)
_FIRST = np.arange(len(FEATURES))[:, None] * KNOTS
_LAST = np.float32(KNOTS - 1.001)


class Curve(msgspec.Struct, frozen=True):
    """A feature's contribution at its knots, which stand `step` apart from `low` on."""

    feature: str
    low: float
    step: float
    values: list[float]


class Curves(msgspec.Struct, frozen=True, kw_only=True):
    """A ranker on disk."""

    version: int = 1
    curves: list[Curve]


class Ranker:
    """Scores feature matrices, float32 [F, n], whose rows are `features.FEATURES`."""

    def __init__(self, weights: Floats) -> None:
        """`weights`, float32 [F, KNOTS]: each feature's contribution at its knots."""
        # As they stand on disk, so that a bundle ranks alike before and after.
        self.weights = np.round(weights.astype(np.float64), DECIMALS).astype(np.float32)
        self._curves = _kernel.Curves(self.weights, _LOW, _PER_STEP)

    def contributions(self, features: Floats) -> Floats:
        """What each feature adds to each candidate's score, float32 [F, n]."""
        return _kernel.contributions(features, self._curves)

    def scores(self, features: Floats) -> Floats:
        """The scores, float32 [n]: the sums of the contributions, added feature by feature."""
        return _kernel.scores(features, self._curves)

    def rank(self, candidates: Candidates, profile: Profile, space: Space) -> tuple[Rows, Floats]:
        """The order of n candidates, best first, int64 [n], and their scores, float32 [n]: by `features.compute` and
        `scores`, the known ones among the places that known ones have; an unknown one keeps its place and has the
        score of its neighbour above. They must have been looked up in the space."""
        return _kernel.rank(candidates, profile, space.table, self._curves)

    def encode(self) -> bytes:
        """The ranker as JSON."""
        curves = [
            Curve(
                feature.name, feature.low, feature.step, [round(float(value), DECIMALS) for value in values]
            )
            for feature, values in zip(FEATURES, self.weights, strict=True)
        ]
        return msgspec.json.format(msgspec.json.encode(Curves(curves=curves)), indent=1)


def places(features: Floats) -> tuple[npt.NDArray[np.intp], Floats]:
    """Where each feature, [F, n], lies on its curve: the knot below, as an index into the flat [F * KNOTS] weights,
    and how far it is from there to the next, from 0 to 1. Both are [F, n]."""
    between = np.clip((features - _LOW[:, None]) * _PER_STEP[:, None], 0, _LAST)
    knots = between.astype(np.intp)
    return knots + _FIRST, (between - knots).astype(np.float32)


def decode(content: bytes) -> Ranker:
    """A ranker from its JSON; a feature it does not know is worth nothing. Raises msgspec.MsgspecError or ValueError where it is none, or of other features."""
    saved = msgspec.json.decode(content, type=Curves)
    if saved.version != 1:
        raise ValueError(f"a ranker of version {saved.version}; this program reads 1")
    weights = np.zeros((len(FEATURES), KNOTS), np.float32)
    for curve in saved.curves:
        at = NAMES.index(curve.feature) if curve.feature in NAMES else None
        if at is None or (curve.low, curve.step, len(curve.values)) != (*FEATURES[at][1:3], KNOTS):
            raise ValueError(f"a ranker of another feature, {curve.feature}, than {', '.join(NAMES)}")
        weights[at] = curve.values
    return Ranker(weights)


def default() -> Ranker:
    """The ranker where there are no searches to learn from: the caller's order, a little bent.

    A place is worth as much as its logarithm; what was acted on last stands out, what was acted on before less;
    a similarity of 1 to the session is worth two doublings of the place, to the four histories of what was
    liked in two weeks half of that together. Written down, not learned.
    """
    grid = np.array([[feature.low + feature.step * knot for knot in range(KNOTS)] for feature in FEATURES])
    weights = np.zeros((len(FEATURES), KNOTS), np.float32)
    weights[POSITION] = -0.5 * grid[POSITION]
    weights[SIMILARITY] = np.clip(grid[SIMILARITY], 0, 1)
    for history in (CLICKED, WISHLISTED, INQUIRED, BOOKED):
        weights[history] = 0.125 * np.clip(grid[history], 0, 1)
    for recency in (RECENCY, RECENCY_OUTSIDE):
        weights[recency, 1:] = 1.5 / grid[recency, 1:]
    weights[FREQUENCY] = 0.3 * np.log2(1 + grid[FREQUENCY])
    return Ranker(weights)
