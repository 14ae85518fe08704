"""EGES: a listing's vector is the weighted mean of one of its own and those of what is known of it.

Wang et al., "Billion-scale commodity embedding for e-commerce recommendation in Alibaba", KDD 2018 (arXiv 1803.02349):
random walks over the directed graph of consecutive clicks (section 2.2), a step with a chance in proportion to the
edge's weight (equation 2); W0 of listing v itself and W1 .. Wn of its side information are joined to

    H_v = sum over j of exp(a_v^j) W_v^j / sum over j of exp(a_v^j)        (equation 7; equation 6, GES, has all a alike)

and H learns to tell a context Z_u from negatives (equation 8, whose gradients, 9 to 11, autograd finds). A listing that
was never acted on has no W0 and no weights: its vector is the mean of those of its side information (section 3.3.2). A
field that says several things of a listing has their mean as its vector; one that says nothing is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Meta
from torch import Tensor

from models.training import descent, noise, pairs, side
from models.training.corpus import Corpus
from models.training.losses import LOSSES, REGULARISERS
from models.training.run import Floats, Run
from models.training.side import Side
from models.training.skip_gram import unit
from models.training.walks import graph, walks

Ints = npt.NDArray[np.int64]

SLICE = 8192
"""Listings whose vectors are made at a time."""


@dataclass(frozen=True, slots=True)
class Eges:
    """The settings of the training."""

    dimensions: Annotated[int, Meta(ge=2, le=1024)] = 32
    epochs: Annotated[int, Meta(ge=1)] = 10
    side: str = side.FIELDS
    """What is taken of what is known of listings."""
    weighted: bool = True
    """Whether weights are learned (EGES), or all count alike (GES)."""
    walks: Annotated[int, Meta(ge=1, le=1000)] = 2
    """From each listing in each epoch,"""
    length: Annotated[int, Meta(ge=2, le=1000)] = 10
    """of so many listings (10 in the paper)."""
    window: Annotated[int, Meta(ge=1, le=100)] = 5
    """A context is at most so many steps away (5 in the paper)."""
    negatives: Annotated[int, Meta(ge=1, le=1000)] = 5
    """Drawn for each pair."""
    noise_exponent: Annotated[float, Meta(ge=-1, le=1)] = 0.75
    """Negatives are drawn by frequency to this power."""
    learning_rate: Annotated[float, Meta(gt=0, le=10)] = 0.05
    loss: str = "log-sigmoid"
    regulariser: str = "none"
    regularisation: Annotated[float, Meta(ge=0)] = 0.0
    """What the regulariser weighs."""
    block: Annotated[int, Meta(ge=1)] = 1024
    """Steps of walks that are learned from together."""


def joined(own: Tensor, about: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """Equation 7: `own` [b, d] and `about` [b, F, d], of which `known` [b, F] are there, by `weights` [b, F + 1]: [b, d]."""
    there = torch.cat([known.new_ones(len(known), 1), known], dim=1)
    shares = weights.masked_fill(~there, -torch.inf).softmax(dim=1)
    return (shares[:, :, None] * torch.cat([own[:, None], about], dim=1)).sum(dim=1)


class Fields:
    """The vectors of listings' fields, from a table of their values' vectors."""

    def __init__(self, of: Side, device: torch.device) -> None:
        self._codes = torch.from_numpy(of.codes.astype(np.int64)).to(device)
        member = np.eye(len(of.fields), dtype=np.float32)[of.columns]
        self._member = torch.from_numpy(member).to(device)

    def codes(self, rows: Tensor) -> Tensor:
        """The rows of the table that these listings need, [r, C]; 0 where nothing is known."""
        return self._codes[rows].clamp(min=0)

    def means(self, rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Of `values` [r, C, d], the table's rows: each field's mean, [r, F, d], and which are known, [r, F]."""
        there = (self._codes[rows] >= 0).to(values.dtype)
        many = there @ self._member
        share = there / (many @ self._member.T).clamp(min=1)
        return (share[:, None, :] * self._member.T) @ values, many > 0


def train(corpus: Corpus, settings: Eges, run: Run) -> Floats:
    """Vectors for the n listings of the corpus, float32 [n, d]: of unit length, zeros where nothing is known of one, not
    even side information.

    Raises UserError where nothing is known of any, and for a loss or regulariser that isn't there.
    """
    loss = descent.named(LOSSES, "loss", settings.loss)
    regulariser = descent.named(REGULARISERS, "regulariser", settings.regulariser)
    of = side.known(corpus.listings, settings.side, "eges")
    fields, over, counts = Fields(of, run.device), graph(corpus, directed=True), corpus.counts
    shape = (run.random, over.size, settings.dimensions, run.device)
    parameters = {
        "own": descent.random_table(*shape),
        "values": descent.random_table(run.random, len(of.values), settings.dimensions, run.device),
        "weights": torch.zeros(over.size, len(of.fields) + 1, device=run.device),
        "contexts": torch.zeros(over.size, settings.dimensions, device=run.device),
    }
    descend = descent.Adagrad(parameters, settings.learning_rate)
    if not len(over.keys):
        return np.zeros((over.size, settings.dimensions), np.float32)
    drawn = noise.noise(counts, corpus.listings.market_codes, settings.noise_exponent)
    warm = torch.from_numpy(counts > 0).to(run.device)

    def vectors() -> Floats:
        made = []
        for start in range(0, over.size, SLICE):
            rows = torch.arange(start, min(start + SLICE, over.size), device=run.device)
            about, known = fields.means(rows, parameters["values"][fields.codes(rows)])
            hidden = joined(parameters["own"][rows], about, known, parameters["weights"][rows])
            alone = about.sum(dim=1) / known.sum(dim=1, keepdim=True).clamp(min=1)
            made.append(torch.where(warm[rows, None], hidden, alone))
        return unit(torch.cat(made).cpu().numpy())

    for _ in run.epochs(settings.epochs, descend.state, vectors):
        for walked, done in walks(over, settings.walks, settings.length, run.random):
            for first in range(0, len(walked.tokens), settings.block):
                last = min(first + settings.block, len(walked.tokens))
                centre, context = pairs.positives(walked, first, last, settings.window, run.random)
                if not len(centre):
                    continue
                negative = drawn.draw(context, settings.negatives, 0, centre, run.random)
                others = torch.from_numpy(np.column_stack([context, negative])).to(run.device)
                rows, place = torch.unique(torch.from_numpy(centre).to(run.device), return_inverse=True)

                values = descend.rows("values", fields.codes(rows))
                about, known = fields.means(rows, values)
                own = descend.rows("own", rows)
                weights = parameters["weights"][rows]
                if settings.weighted:
                    weights = descend.rows("weights", rows)
                hidden = joined(own, about, known, weights)
                around = descend.rows("contexts", others)
                scores = (around @ hidden[place][:, :, None]).squeeze(2)
                cost = loss(scores[:, 0], scores[:, 1:]).sum()
                held = regulariser(torch.cat([own, values.flatten(0, 1), around.flatten(0, 1)]))
                descend.step(cost + settings.regularisation * held)
                run.step(cost.item(), len(centre), int(100 * done), 100)
    return vectors()
