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


@dataclass(frozen=True, slots=True)
class Example:
    """A search: the features of its candidates, float32 [n, F], and the index of the chosen one."""

    features: Floats
    chosen: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """The settings of the training."""

    smoothness: float = 3.0
    """Weight of the squared second differences along a curve,"""
    shrinkage: float = 0.1
    """and of the squared weights, beside the loss summed over the searches."""
    steps: int = 100


def loss(scores: Tensor, searches: Tensor, chosen: Tensor) -> Tensor:
    """Summed over the searches: -log softmax of the chosen candidate's score. `scores` [n] are of the candidates of
    all searches end to end, `searches` [n] says whose, `chosen` [s] which candidate each search's choice is."""
    top = torch.full((len(chosen),), -torch.inf).scatter_reduce(0, searches, scores.detach(), "amax")
    mass = torch.zeros(len(chosen)).index_add(0, searches, (scores - top[searches]).exp())
    return (mass.log() + top - scores[chosen]).sum()


def roughness(weights: Tensor) -> Tensor:
    """The sum of the squared second differences along each curve, but over the knot of what is not known."""
    bends = weights[:, 2:] - 2 * weights[:, 1:-1] + weights[:, :-2]
    apart = torch.tensor([feature.apart for feature in FEATURES])
    return bends[:, 1:].square().sum() + bends[~apart, 0].square().sum()


def train(
    examples: Sequence[Example],
    settings: Ranking,
    on_progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Ranker:
    """The ranker learned from searches. Raises ValueError where there are none."""
    if not examples:
        raise ValueError("no searches to learn from")
    knots, between = places(np.concatenate([example.features for example in examples]))
    at = torch.from_numpy(knots.astype(np.int64))
    part = torch.from_numpy(between)
    sizes = np.array([len(example.features) for example in examples])
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
        scores = (flat[at] * (1 - part) + flat[at + 1] * part).sum(dim=1)
        choice = loss(scores, searches, chosen)
        value = choice + settings.smoothness * roughness(weights) + settings.shrinkage * weights.square().sum()
        value.backward()
        calls += 1
        on_progress(min(calls, settings.steps), settings.steps, f"loss {choice.item() / len(examples):.3f}")
        return value

    optimizer.step(closure)
    return Ranker(weights.detach().numpy(), learned=True)
