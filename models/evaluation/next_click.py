"""The offline protocol: which listing is clicked next, at every place behind the first of every test visit.

Asked are the places whose listing occurs in the training; known is what was clicked before in the visit. Everything is
learned from the training visits alone, settings too (models.evaluation.tuning). The best 20 listings are compared, of
equal ones the more popular first; whether what was clicked already may be recommended again is a setting as the others.
"""

from __future__ import annotations

import time
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
from models.evaluation.recommending import LENGTH, REPEATS, Repeats, recommend
from models.evaluation.tuning import Validation
from models.evaluation.visits import Visits

CUTOFFS = (5, 10, 20)
RANKED = {"hit_rate": hits, "mrr": reciprocal, "ndcg": gain}
METRICS = tuple(f"{name}@{k}" for name in RANKED for k in CUTOFFS)
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
    on_progress: Progress = lambda title, done, total: None,
) -> Recommended:
    """A baseline of BASELINES, with the settings that are best on the last part of the training visits."""
    grid = BASELINES[name]
    started = time.perf_counter()
    method, repeats = tuning.choose(
        grid, validation, lambda done: on_progress(f"choosing settings of {name}", done, len(grid))
    )
    chosen = time.perf_counter()
    made = _recommend(name, method.fit(train), train, asked, repeats, on_progress)
    settings = asdict(method) | {"repeats": repeats}  # type: ignore[call-overload]
    return Recommended(name, made, settings, time.perf_counter() - chosen, chosen - started, True)


def bundle(
    name: str,
    made: Bundle,
    train: Visits,
    asked: Positions,
    validation: Validation | None,
    fit_seconds: float = 0.0,
    on_progress: Progress = lambda title, done, total: None,
) -> Recommended:
    """What a bundle recommends. Which repeats it may is chosen on the last part of the training visits; all else is its own."""
    started = time.perf_counter()
    repeats: Repeats = REPEATS[0]
    if validation is not None:
        found = tuning.compare(Bundled(made, validation.earlier.listings), validation)
        repeats = max(REPEATS, key=found.__getitem__)
    chosen = time.perf_counter()
    recommended = _recommend(name, Bundled(made, train.listings), train, asked, repeats, on_progress)
    settings = dict(made.manifest.training.settings) | {"repeats": repeats}
    seconds = fit_seconds + time.perf_counter() - chosen
    return Recommended(name, recommended, settings, seconds, chosen - started, False)


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
    each metric with the baseline that is best by it, the row itself left aside."""
    names = (*METRICS, BIAS)
    values = [measured(row, train, asked) for row in rows]
    visits = np.unique(asked.visits, return_inverse=True)[1]
    by_visit = [confidence.sums(of, visits) for of in values]
    counts = by_visit[0][1]
    means = confidence.resampled(
        np.concatenate([of for of, _ in by_visit], axis=1), counts, np.random.default_rng([seed, 1])
    ).reshape(-1, len(rows), len(names))
    found = np.array([of.mean(axis=0) for of in values])
    results = []
    for at, row in enumerate(rows):
        result: dict[str, Any] = {"name": row.name, "baseline": row.baseline}
        result |= dict(zip(names, found[at].tolist(), strict=True))
        result[COVERAGE] = coverage(row.lists, len(train.listings))
        result["ci"] = dict(zip(names, _intervals(means[:, at]), strict=True))
        result["seconds"] = round(row.seconds, 3)
        result["tuning_seconds"] = round(row.tuning_seconds, 3)
        result["settings"] = row.settings
        result["versus"] = _versus(at, rows, found, [of for of, _ in by_visit], means, seed)
        results.append(result)
    results.sort(key=lambda result: -float(result[f"hit_rate@{LENGTH}"]))
    return {"n": len(asked), "visits": len(counts), "results": results}


def _intervals(means: Floats) -> list[list[float]]:
    outside = 100 * (1 - confidence.LEVEL) / 2
    low, high = np.percentile(means, [outside, 100 - outside], axis=0)
    return [[float(a), float(b)] for a, b in zip(low, high, strict=True)]


def _versus(
    at: int, rows: Sequence[Recommended], found: Floats, by_visit: list[Floats], means: Floats, seed: int
) -> dict[str, Any]:
    """By metric: the best of the other baselines, how far the row is above it, the interval of that, and the p-value."""
    others = [other for other, row in enumerate(rows) if row.baseline and other != at]
    if not others:
        return {}
    best = [max(others, key=lambda other: float(found[other, metric])) for metric in range(len(METRICS))]
    differences = np.column_stack(
        [by_visit[at][:, metric] - by_visit[other][:, metric] for metric, other in enumerate(best)]
    )
    ps = significance.p_values(differences, np.random.default_rng([seed, 2]))
    drawn = np.column_stack(
        [means[:, at, metric] - means[:, other, metric] for metric, other in enumerate(best)]
    )
    return {
        name: {
            "baseline": rows[other].name,
            "difference": float(found[at, metric] - found[other, metric]),
            "ci": interval,
            "p": p,
        }
        for metric, (name, other, interval, p) in enumerate(
            zip(METRICS, best, _intervals(drawn), ps, strict=True)
        )
    }
