"""Learning the ranker: the curves under which the chosen listings of recorded searches were the likeliest choices.

The loss is the listwise softmax cross entropy (Cao et al., "Learning to rank: from pairwise approach to listwise
approach", ICML 2007, with one relevant document), kept smooth along each curve.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.features import FEATURES, KNOTS
from models.ranker import Ranker, places

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Example:
    """A search: the features of its candidates, float32 [F, n], and the index of the chosen one."""

    features: Floats
    chosen: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """The settings of the training."""

    smoothness: float = 10.0
    """Weight of the squared second differences along a curve,"""
    shrinkage: float = 1.0
    """and of the squared weights, beside the loss summed over the searches."""
    steps: int = 100
    support: int = 20
    """Beyond the outermost knots that so many candidates lay at, a curve stays level."""


def loss(scores: Tensor, searches: Tensor, chosen: Tensor) -> Tensor:
    """Summed over the searches: -log softmax of the chosen candidate's score. `scores` [n] are of the candidates of
    all searches end to end, `searches` [n] says whose, `chosen` [s] which candidate each search's choice is."""
    top = torch.full((len(chosen),), -torch.inf).scatter_reduce(0, searches, scores.detach(), "amax")
    mass = torch.zeros(len(chosen)).index_add(0, searches, (scores - top[searches]).exp())
    return (mass.log() + top - scores[chosen]).sum()


def penalty(weights: Tensor, settings: Ranking) -> Tensor:
    """What curves, [F, KNOTS], cost by themselves. The first knot of a feature that can be unknown stands apart."""
    bends = weights.diff(n=2, dim=1)
    apart = torch.tensor([feature.apart for feature in FEATURES])
    rough = bends[:, 1:].square().sum() + bends[~apart, 0].square().sum()
    return settings.smoothness * rough + settings.shrinkage * weights.square().sum()


def level(weights: Floats, knots: Ints, between: Floats, support: int) -> Floats:
    """The curves, [F, KNOTS], level outside of what was seen: `knots` and `between`, [F, n], as `ranker.places` gives."""
    below = np.bincount(knots.ravel(), minlength=weights.size)
    above = np.bincount(knots[between > 0] + 1, minlength=weights.size)
    near = (below + above).reshape(weights.shape) >= support
    result = weights.copy()
    for curve, supported, feature in zip(result, near, FEATURES, strict=True):
        inside = np.flatnonzero(supported[feature.apart :]) + int(feature.apart)
        if len(inside):
            curve[feature.apart : inside[0]] = curve[inside[0]]
            curve[inside[-1] :] = curve[inside[-1]]
    return result


def train(
    examples: Sequence[Example],
    settings: Ranking,
    on_progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Ranker:
    """The ranker learned from searches. Raises ValueError where there are none."""
    if not examples:
        raise ValueError("no searches to learn from")
    knots, between = places(np.concatenate([example.features for example in examples], axis=1))
    at = torch.from_numpy(knots.astype(np.int64))
    part = torch.from_numpy(between)
    sizes = np.array([example.features.shape[1] for example in examples])
    starts = np.cumsum(sizes) - sizes
    searches = torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))
    chosen = torch.from_numpy(starts + [example.chosen for example in examples])
    weights = torch.zeros((len(FEATURES), KNOTS), requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=settings.steps, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )
    calls = 0

    def closure() -> Tensor:
        nonlocal calls
        optimizer.zero_grad()
        flat = weights.flatten()
        scores = (flat[at] * (1 - part) + flat[at + 1] * part).sum(dim=0)
        choice = loss(scores, searches, chosen)
        value = choice + penalty(weights, settings)
        value.backward()  # type: ignore[no-untyped-call]
        calls += 1
        on_progress(min(calls, settings.steps), settings.steps, f"loss {choice.item() / len(examples):.3f}")
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return Ranker(level(weights.detach().numpy(), knots, between, settings.support))
