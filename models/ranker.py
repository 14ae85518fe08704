"""Features -> score: an additive model whose every part can be read.

The score of a candidate is the sum of one contribution for each feature; a contribution is a piecewise linear
function of that feature alone, given by its value at each of the feature's knots. (Hastie and Tibshirani,
"Generalized Additive Models", 1986.)
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from models.features import FEATURES, FREQUENCY, KNOTS, NAMES, POSITION, RECENCY, RECENCY_OUTSIDE, SIMILARITY

Floats = npt.NDArray[np.float32]


DECIMALS = 6

_LOW = np.array([[feature.low] for feature in FEATURES], np.float32)
_PER_STEP = np.array([[1 / feature.step] for feature in FEATURES], np.float32)
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
    """Scores feature matrices, float32 [n, F], whose columns are `features.FEATURES`."""

    def __init__(self, weights: Floats) -> None:
        """`weights`, float32 [F, KNOTS]: each feature's contribution at its knots."""
        # As they stand on disk, so that a bundle ranks alike before and after.
        self.weights = np.round(weights.astype(np.float64), DECIMALS).astype(np.float32)
        self._values = self.weights.ravel()
        self._rises = np.diff(self.weights, axis=1, append=self.weights[:, -1:]).ravel()

    def contributions(self, features: Floats) -> Floats:
        """What each feature adds to each candidate's score, float32 [n, F]."""
        knots, between = places(features)
        # Every place is inside; "clip" only spares the check.
        parts: Floats = self._rises.take(knots, mode="clip")
        parts *= between
        parts += self._values.take(knots, mode="clip")
        return parts.T

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
    """Where each feature lies on its curve: the knot below, as an index into the flat [F * KNOTS] weights, and how
    far it is from there to the next, from 0 to 1. Both are [F, n]: feature by feature, as the matrix lies in memory."""
    between = features.T - _LOW
    between *= _PER_STEP
    np.maximum(between, 0, out=between)
    np.minimum(between, _LAST, out=between)
    knots = between.astype(np.intp)
    between -= knots
    knots += _FIRST
    return knots, between


def total(contributions: Floats) -> Floats:
    """The scores, [n]: the sums of contributions, [n, F], feature by feature in their order."""
    scores: Floats = np.add.reduce(contributions, axis=1)
    return scores


def decode(content: bytes) -> Ranker:
    """A ranker from its JSON. Raises msgspec.MsgspecError or ValueError where it is none, or of other features."""
    saved = msgspec.json.decode(content, type=Curves)
    if saved.version != 1:
        raise ValueError(f"a ranker of version {saved.version}; this program reads 1")
    shapes = [(curve.feature, curve.low, curve.step, len(curve.values)) for curve in saved.curves]
    if shapes != [(f.name, f.low, f.step, KNOTS) for f in FEATURES]:
        raise ValueError(f"a ranker of other features than {', '.join(NAMES)}")
    return Ranker(np.array([curve.values for curve in saved.curves], np.float32))


def default() -> Ranker:
    """The ranker where there are no searches to learn from: the caller's order, a little bent.

    A place is worth as much as its logarithm; what was acted on last stands out, what was acted on before less;
    a similarity of 1 is worth two doublings of the place. Written down, not learned.
    """
    grid = np.array([[feature.low + feature.step * knot for knot in range(KNOTS)] for feature in FEATURES])
    weights = np.zeros((len(FEATURES), KNOTS), np.float32)
    weights[POSITION] = -0.5 * grid[POSITION]
    weights[SIMILARITY] = np.clip(grid[SIMILARITY], 0, 1)
    for recency in (RECENCY, RECENCY_OUTSIDE):
        weights[recency, 1:] = 1.5 / grid[recency, 1:]
    weights[FREQUENCY] = 0.3 * np.log2(1 + grid[FREQUENCY])
    return Ranker(weights)
