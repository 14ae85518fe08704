"""The offline protocol: which listing is clicked next, at every place behind the first of every test visit.

Asked are the places whose listing occurs in the training; known is what was clicked before in the visit. Everything is
learned from the training visits alone, settings too (models.evaluation.tuning). The best 20 listings are compared, of
equal ones the more popular first; whether what was clicked already may be recommended again is a setting as the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.evaluation import confidence, lists, significance, tuning
from models.evaluation.bundled import Bundled
from models.evaluation.coverage import coverage
from models.evaluation.hit_rate import hits
from models.evaluation.methods import BASELINES, Scorer
from models.evaluation.mrr import reciprocal
from models.evaluation.ndcg import gain
from models.evaluation.popularity_bias import popularity
from models.evaluation.positions import Positions
from models.evaluation.recommending import LENGTH, Repeats, recommend
from models.evaluation.tuning import Validation
from models.evaluation.visits import Visits

CUTOFFS = (5, 10, 20)
RANKED = {"hit_rate": hits, "mrr": reciprocal, "ndcg": gain}
METRICS = tuple(f"{name}@{k}" for name in RANKED for k in CUTOFFS)
ALIKE = "decayed-rules"
"""The baseline that is most like a bundle: all clicks of the visit count, the newest most."""
BIAS, COVERAGE = f"popularity_bias@{LENGTH}", f"coverage@{LENGTH}"

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Progress = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class Recommended:
    """What a method recommended, and how it came to it."""

    name: str
    lists: Ints
    """[p, 20], of codes, best first."""
    settings: dict[str, Any]
    seconds: float
    """To fit the method, with the settings that were chosen, and to recommend."""
    tuning_seconds: float
    baseline: bool


def baseline(
    name: str,
    train: Visits,
    asked: Positions,
    validation: Validation | None,
    clock: Callable[[], float],
    on_progress: Progress = lambda title, done, total: None,
) -> Recommended:
    """A baseline of BASELINES, with the settings that are best on the last part of the training visits; `clock` tells
    the seconds it takes."""
    grid = BASELINES[name]
    started = clock()
    method, repeats = tuning.choose(
        grid, validation, lambda done: on_progress(f"choosing settings of {name}", done, len(grid))
    )
    chosen = clock()
    made = _recommend(name, method.fit(train), train, asked, repeats, on_progress)
    settings = asdict(method) | {"repeats": repeats}  # type: ignore[call-overload]
    return Recommended(name, made, settings, clock() - chosen, chosen - started, True)


def repeats(rows: Sequence[Recommended], validation: Validation | None) -> Repeats:
    """Which repeats bundles may recommend: what serves decayed rules best. A bundle was fitted to the last part of the
    training visits too, and what it repeats of these says nothing of others."""
    known = next((row.settings["repeats"] for row in rows if row.name == ALIKE), None)
    return known or tuning.choose(BASELINES[ALIKE], validation)[1]


def bundle(
    name: str,
    made: Bundle,
    train: Visits,
    asked: Positions,
    repeats: Repeats,
    clock: Callable[[], float],
    on_progress: Progress = lambda title, done, total: None,
) -> Recommended:
    """What a bundle recommends. All but `repeats` is its own."""
    started = clock()
    recommended = _recommend(name, Bundled(made, train.listings), train, asked, repeats, on_progress)
    settings = dict(made.manifest.training.settings) | {"repeats": repeats}
    return Recommended(name, recommended, settings, clock() - started, 0.0, False)


def _recommend(
    name: str, score: Scorer, train: Visits, asked: Positions, repeats: Repeats, on_progress: Progress
) -> Ints:
    made = recommend(
        score,
        asked,
        len(train.listings),
        [repeats],
        lambda done: on_progress(f"recommending by {name}", done, len(asked)),
    )
    return made[repeats]


def measured(made: Recommended, train: Visits, asked: Positions) -> Floats:
    """By position METRICS and the popularity of the list, [p, m]."""
    ranks = lists.ranks(made.lists, asked.targets)
    columns = [metric(ranks, k) for metric in RANKED.values() for k in CUTOFFS]
    return np.column_stack([*columns, popularity(made.lists, train.counts)])


def report(rows: Sequence[Recommended], train: Visits, asked: Positions, seed: int) -> dict[str, Any]:
    """The table, the best HR@20 first: each row's metrics with 95 % intervals over visits, and the paired comparison of
    each metric with the baseline that is best by it, the row itself left aside. Visits without a target are not counted."""
    names = (*METRICS, BIAS)
    values = [measured(row, train, asked) for row in rows]
    visits = np.unique(asked.visits, return_inverse=True)[1]
    sums, counts = confidence.sums(np.concatenate(values, axis=1), visits)
    means = confidence.resampled(sums, counts, np.random.default_rng([seed, 1]))
    table = _Table(
        rows,
        np.array([of.mean(axis=0) for of in values]),
        sums.reshape(-1, len(rows), len(names)),
        means.reshape(-1, len(rows), len(names)),
    )
    versus = table.versus(np.random.default_rng([seed, 2]))
    results = []
    for at, row in enumerate(rows):
        result: dict[str, Any] = {"name": row.name, "baseline": row.baseline}
        result |= dict(zip(names, table.found[at].tolist(), strict=True))
        result[COVERAGE] = coverage(row.lists, len(train.listings))
        # Sums of the same numbers in another order may differ in the last digit: the mean is inside all the same.
        result["ci"] = {
            name: [min(low, result[name]), max(high, result[name])]
            for name, (low, high) in zip(names, _intervals(table.means[:, at]), strict=True)
        }
        result["seconds"] = round(row.seconds, 3)
        result["tuning_seconds"] = round(row.tuning_seconds, 3)
        result["settings"] = row.settings
        result["versus"] = versus[at]
        results.append(result)
    results.sort(key=lambda result: -float(result[f"hit_rate@{LENGTH}"]))
    return {"n": len(asked), "visits": len(counts), "results": results}


@dataclass(frozen=True, slots=True)
class _Table:
    """What was found of each row and metric."""

    rows: Sequence[Recommended]
    found: Floats
    """The means, [r, m]."""
    sums: Floats
    """By visit, [v, r, m]."""
    means: Floats
    """Of samples of the visits, [s, r, m]."""

    def versus(self, random: np.random.Generator) -> list[dict[str, Any]]:
        """For each row by metric: the best of the other baselines, how far the row is above it, and how sure that is."""
        pairs = [
            (at, max(others, key=lambda other: float(self.found[other, metric])), metric)
            for at in range(len(self.rows))
            if (others := [other for other, row in enumerate(self.rows) if row.baseline and other != at])
            for metric in range(len(METRICS))
        ]
        versus: list[dict[str, Any]] = [{} for _ in self.rows]
        if not pairs:
            return versus
        ones, others, metrics = (list(column) for column in zip(*pairs, strict=True))
        ps = significance.p_values(self.sums[:, ones, metrics] - self.sums[:, others, metrics], random)
        intervals = _intervals(self.means[:, ones, metrics] - self.means[:, others, metrics])
        for (at, other, metric), p, interval in zip(pairs, ps, intervals, strict=True):
            versus[at][METRICS[metric]] = {
                "baseline": self.rows[other].name,
                "difference": float(self.found[at, metric] - self.found[other, metric]),
                "ci": interval,
                "p": p,
            }
        return versus


def _intervals(means: Floats) -> list[list[float]]:
    return [list(pair) for pair in confidence.percentiles(means)]
