"""The ranking features: what is known of each candidate at the moment of a search, computed by the kernel.

One row a candidate, one column a feature; `FEATURES` names the columns and says where the knots of each are, on
which the ranker stands its weights. What is not known has a value of its own, one whole step below the others, so
that the ranker learns what "not known" is worth.

The eight of Airbnb (Grbovic and Cheng, KDD 2018, section 4.4 and table 6) are `clicked` to `user_type`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models import _kernel
from models._kernel import Profile
from models.space import Space

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


class Feature(NamedTuple):
    """A column: KNOTS values from `low` on, `step` apart. Values outside count as the nearest end."""

    name: str
    low: float
    step: float
    apart: bool
    """The value `low` says that the feature is not known, and no value lies between it and the next knot."""


KNOTS = 24


def _similarity(name: str) -> Feature:
    return Feature(name, -1.2, 0.1, True)


FEATURES = (
    Feature("position", 0.0, 0.5, False),
    Feature("caller_score", -4.0, 0.5, False),
    _similarity("similarity"),
    _similarity("clicked"),
    _similarity("long_clicked"),
    _similarity("skipped"),
    _similarity("wishlisted"),
    _similarity("inquired"),
    _similarity("booked"),
    _similarity("last_long_click"),
    _similarity("user_type"),
    Feature("recency", 0.0, 1.0, True),
    Feature("recency_outside", 0.0, 1.0, True),
    Feature("frequency", 0.0, 1.0, True),
    Feature("distance", -6.0, 0.5, True),
    Feature("price", -3.0, 0.25, True),
)
"""position: log2 of the place in the caller's list, from 1.
caller_score: standardised within the list; 0 where not every candidate has one, or they are too large for that.
similarity: of the open session's vector, the encoder's, and the candidate's; -1.2 where one is missing.
clicked, long_clicked, skipped, wishlisted, inquired, booked: the candidate's similarity to what the visitor did so in
two weeks, this visit included: to the centroid in each market, and of these the greatest.
last_long_click: to the last listing the visitor stayed with for a minute.
user_type: of the visitor's type and the candidate's, whose vectors have a space of their own.
recency: one, and how many other listings were acted on since the candidate was; 0 where it was not, or
recency_outside: has it instead, where the session's newest action was not in a search's results.
frequency: how often the candidate was acted on in this session.
distance: how far below the listing of this list that was acted on last, as sign * log2(1 + places), where the last
search's results are in this list too, so that the visitor may be going on down; -6 where not.
price: log2 of how many times dearer than the geometric mean of what was acted on in this session; -3 where unknown."""
NAMES = tuple(feature.name for feature in FEATURES)
(
    POSITION,
    CALLER_SCORE,
    SIMILARITY,
    CLICKED,
    LONG_CLICKED,
    SKIPPED,
    WISHLISTED,
    INQUIRED,
    BOOKED,
    LAST_LONG_CLICK,
    USER_TYPE,
    RECENCY,
    RECENCY_OUTSIDE,
    FREQUENCY,
    DISTANCE,
    PRICE,
) = range(len(FEATURES))


def compute(
    profile: Profile, space: Space, rows: Rows, positions: Rows, scores: Doubles, prices: Doubles
) -> Floats:
    """The features of the n candidates in `rows`, float32 [F, n]: feature by feature.

    `positions` are their places in the caller's list, from 1; `scores` and `prices` what the caller says of them,
    float64 [n], NaN where nothing: a listing's own price stands for one that is not said.
    """
    return _kernel.features(space.table, rows, positions, scores, prices, profile)
