"""Settings chosen on the training visits alone: fitted to their earlier part, and compared on their last part.

The last part are the visits that begin in the last tenth of all, of two clicks or more; of these some are drawn where
there are many. What is fitted to are the clicks before them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from models.evaluation import lists, ndcg
from models.evaluation.methods import Method, Scorer
from models.evaluation.positions import Positions, positions
from models.evaluation.recommending import LENGTH, REPEATS, Repeats, recommend
from models.evaluation.visits import Visits

PART = 0.1
"""The part of the visits that settings are compared on,"""
TARGETS = 2_000
"""or so many visits of it as have at least so many targets."""
FEWEST = 50
"""With fewer targets nothing is chosen."""


@dataclass(frozen=True, slots=True)
class Validation:
    """The training visits parted in two."""

    earlier: Visits
    later: Positions


def part(visits: Visits, random: np.random.Generator) -> Validation | None:
    """The training visits parted; None where they are too few."""
    long = np.flatnonzero(np.diff(visits.starts) > 1)
    if not len(long):
        return None
    since = int(visits.times[visits.starts[long[int(len(long) * (1 - PART))]]])
    earlier = visits.before(since)
    later = long[visits.times[visits.starts[long]] >= since]
    drawn = random.permutation(later)
    targets = np.cumsum(np.diff(visits.starts)[drawn] - 1)
    drawn = drawn[: int(np.searchsorted(targets, TARGETS)) + 1]
    asked = positions(visits.chosen(drawn), earlier)
    return Validation(earlier, asked) if len(asked) >= FEWEST else None


def choose(
    methods: Sequence[Method],
    validation: Validation | None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[Method, Repeats]:
    """The method and the kind of repeats with the best NDCG@20 on the later part; the first where there is none."""
    if validation is None:
        return methods[0], REPEATS[0]
    found = []
    for at, method in enumerate(methods):
        on_progress(at)
        found += [
            (value, -at, -REPEATS.index(repeats), repeats)
            for repeats, value in compare(method.fit(validation.earlier), validation).items()
        ]
    _, at, _, repeats = max(found)
    return methods[-at], repeats


def compare(score: Scorer, validation: Validation) -> dict[Repeats, float]:
    """NDCG@20 on the later part, with each kind of repeats."""
    asked = validation.later
    made = recommend(score, asked, len(validation.earlier.listings), REPEATS)
    return {
        repeats: float(ndcg.gain(lists.ranks(of, asked.targets), LENGTH).mean())
        for repeats, of in made.items()
    }
