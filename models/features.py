"""The ranking features: what is known of each candidate at the moment of a search, in numpy.

One row a candidate, one column a feature; `FEATURES` names the columns and says where the knots of each are, on
which the ranker stands its weights. What is not known has a value of its own, one whole step below the others, so
that the ranker learns what "not known" is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.sessions import Action, Session, Shown

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class Feature(NamedTuple):
    """A column: KNOTS values from `low` on, `step` apart. Values outside count as the nearest end."""

    name: str
    low: float
    step: float
    apart: bool
    """The value `low` says that the feature is not known, and no value lies between it and the next knot."""


KNOTS = 24
FEATURES = (
    Feature("position", 0.0, 0.5, False),
    Feature("similarity", -1.2, 0.1, True),
    Feature("recency", 0.0, 1.0, True),
    Feature("recency_outside", 0.0, 1.0, True),
    Feature("frequency", 0.0, 1.0, True),
    Feature("distance", -6.0, 0.5, True),
    Feature("caller_score", -4.0, 0.5, False),
)
"""position: log2 of the place in the caller's list, from 1.
similarity: of the session's vector and the candidate's; -1.2 where one is missing.
recency: one, and how many other listings were acted on since the candidate was; 0 where it was not, or
recency_outside: has it instead, where the session's newest action was not in a search's results.
frequency: how often the candidate was acted on in this session.
distance: how far below the listing of this list that was acted on last, as sign * log2(1 + places), where the last
search's results are in this list too, so that the visitor may be going on down; -6 where not.
caller_score: standardised within the list; 0 where not every candidate has one, or they are too large for that."""
NAMES = tuple(feature.name for feature in FEATURES)
POSITION, SIMILARITY, RECENCY, RECENCY_OUTSIDE, FREQUENCY, DISTANCE, CALLER_SCORE = range(len(FEATURES))
NO_SIMILARITY = FEATURES[SIMILARITY].low
NO_DISTANCE = FEATURES[DISTANCE].low

_LONGEST = 1_024
_LOG_POSITION = np.log2(np.arange(1, _LONGEST + 1)).astype(np.float32)
_BELOW = np.arange(-_LONGEST, _LONGEST + 1)
_LOG_DISTANCE = np.clip(np.sign(_BELOW) * np.log2(1 + np.abs(_BELOW)), -5.5, 5.5).astype(np.float32)


def compute(
    *,
    rows: Rows,
    positions: Rows,
    vectors: Floats,
    row: dict[str, int],
    session: Session,
    vector: Floats | None,
    scores: Sequence[float] | None = None,
) -> Floats:
    """The features of the candidates in `rows`, float32 [n, F].

    `positions` are their places in the caller's list, from 1; `vector` is the session's, [d], None where there is
    none in the space of `vectors`; `scores` are the caller's, of these candidates.
    """
    # Column by column in memory: each is written and read as one run.
    features = np.zeros((len(FEATURES), len(rows)), np.float32)
    features[POSITION] = _LOG_POSITION.take(positions - 1, mode="clip")
    if vector is None:
        features[SIMILARITY] = NO_SIMILARITY
    else:
        similarity = vectors.take(rows, axis=0) @ vector
        # The product of two unit vectors is next to never an exact 0: that is a listing without a vector.
        similarity[similarity == 0] = NO_SIMILARITY
        features[SIMILARITY] = similarity
    features[DISTANCE] = NO_DISTANCE
    acted = _acted_on(session, row)
    if acted:
        at, which = np.nonzero(rows[:, None] == np.array(list(acted), np.int64))
        if len(at):
            recency = RECENCY if _newest_action(session).search_id else RECENCY_OUTSIDE
            features[recency, at] = len(acted) - which
            features[FREQUENCY, at] = np.array(list(acted.values()), np.float32)[which]
            if _goes_on(session, row, rows):
                below = positions - positions[at[which.argmax()]]
                features[DISTANCE] = _LOG_DISTANCE.take(below + _LONGEST, mode="clip")
    if scores is not None:
        given = np.asarray(scores, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            spread = given.std()
        if 0 < spread < np.inf:
            features[CALLER_SCORE] = (given - given.mean()) / spread
    return features.T


def _acted_on(session: Session, row: dict[str, int]) -> dict[int, int]:
    """How often each known listing was acted on in the session, by row; the one acted on last stands last."""
    counts: dict[int, int] = {}
    for event in session.events:
        if isinstance(event, Action) and event.kind != "rejection":
            at = row.get(event.listing_id)
            if at is not None:
                counts[at] = counts.pop(at, 0) + 1
    return counts


def _newest_action(session: Session) -> Action:
    return next(
        event for event in reversed(session.events) if isinstance(event, Action) and event.kind != "rejection"
    )


def _goes_on(session: Session, row: dict[str, int], rows: Rows) -> bool:
    """Whether all that the session's last search showed stands in this list."""
    last = next((event for event in reversed(session.events) if isinstance(event, Shown)), None)
    if last is None or not last.results:
        return False
    shown = {row.get(listing) for listing in last.results}
    shown.discard(None)
    return shown <= set(rows.tolist())
