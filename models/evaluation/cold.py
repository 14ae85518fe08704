"""What the vectors are worth of listings that nobody had clicked in the training: later visits' clicks on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from models.bundle import Bundle
from models.evaluation import confidence, lists
from models.evaluation.bundled import Bundled
from models.evaluation.hit_rate import hits
from models.evaluation.mrr import reciprocal
from models.evaluation.positions import positions
from models.evaluation.recommending import CELLS, LENGTH
from models.evaluation.visits import Visits

METRICS = (f"hit_rate@{LENGTH}", f"mrr@{LENGTH}")


def report(made: Bundle, train: Visits, test: Visits, random: np.random.Generator) -> dict[str, Any]:
    """How far the bundle finds the cold listing that is clicked next, by what was clicked before, among all cold
    listings that have a vector in it.

    `clicks` are those behind a visit's first on listings without a click in the training, and `coverage` is the share
    of them whose listing has a vector; of these, `n`, are the metrics, with 95 % intervals over visits, beside what a
    random order would have. Metrics are None where n is 0.
    """
    clicked = set(train.listings)
    known = [
        listing
        for row, listing in enumerate(made.listings.ids)
        if listing not in clicked and made.vectors[row].any()
    ]
    known = [known[at] for at in random.permutation(len(known))]  # of equal scores the first is listed
    behind = np.ones(len(test.items), np.bool_)
    behind[test.starts[:-1]] = False
    cold = np.array([listing not in clicked for listing in test.listings])[test.items]
    asked = positions(test, replace(train, listings=known))
    clicks, size = int((behind & cold).sum()), len(known)
    found: dict[str, Any] = {
        "clicks": clicks,
        "n": len(asked),
        "listings": size,
        "coverage": len(asked) / clicks if clicks else None,
        **dict.fromkeys(METRICS),
        "ci": {},
        "chance": {},
    }
    if not len(asked):
        return found
    score = Bundled(made, known)
    step = max(1, CELLS // size)
    blocks = [asked[at : at + step] for at in range(0, len(asked), step)]
    ranks = lists.ranks(np.concatenate([lists.best(score(block), LENGTH) for block in blocks]), asked.targets)
    values = np.column_stack([hits(ranks, LENGTH), reciprocal(ranks, LENGTH)])
    visits = np.unique(asked.visits, return_inverse=True)[1]
    places = min(LENGTH, size)
    chance = (places / size, float((1 / np.arange(1, places + 1)).sum()) / size)
    found |= dict(zip(METRICS, values.mean(axis=0).tolist(), strict=True))
    intervals = confidence.intervals(values, visits, random)
    found["ci"] = {name: list(pair) for name, pair in zip(METRICS, intervals, strict=True)}
    found["chance"] = dict(zip(METRICS, chance, strict=True))
    return found
