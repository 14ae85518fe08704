"""Matrix factorisation of implicit feedback by autograd: a vector for each row (a session or a user) and each listing,
whose product says how likely the row acts on the listing.

Pairwise: Rendle, Freudenthaler, Gantner and Schmidt-Thieme, "BPR: Bayesian personalized ranking from implicit
feedback", UAI 2009 (`loss = "bpr"`, section 4.1, BPR-Opt), or any other of LOSSES in its place. There one listing that
was not acted on is drawn for each positive, all with one chance (`negatives = 1`, `noise_exponent = 0`); unless told, several
are drawn here, frequent ones oftener.
Weighted squares: Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008. The
objective's sum over all pairs, acted on or not, is taken whole with the Gram matrix of the listings, as Rendle,
Krichene, Zhang and Koren do ("Revisiting the performance of iALS on item recommendation benchmarks", RecSys 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from msgspec import Meta
from torch import Tensor

from models.training import descent
from models.training.corpus import Corpus
from models.training.interactions import Interactions, Rows
from models.training.losses import LOSSES, NEVER, REGULARISERS
from models.training.noise import Unigram
from models.training.run import Floats, Run
from models.training.skip_gram import unit

SQUARES = "weighted-squares"


@dataclass(frozen=True, slots=True)
class MatrixFactorisation:
    """The settings of the training."""

    dimensions: Annotated[int, Meta(ge=2, le=1024)] = 32
    epochs: Annotated[int, Meta(ge=1)] = 20
    rows: Rows = "session"
    """Whose vectors stand beside the listings': each session's, or each user's."""
    loss: str = "bpr"
    """One of LOSSES, or `weighted-squares`."""
    negatives: Annotated[int, Meta(ge=1, le=1000)] = 5
    """Listings not acted on, drawn for each that was; for weighted squares all of them count."""
    noise_exponent: Annotated[float, Meta(ge=-1, le=1)] = 0.5
    """Negatives are drawn by frequency to this power."""
    alpha: Annotated[float, Meta(ge=0)] = 10.0
    """Weighted squares: having acted r times on a listing weighs 1 + alpha r."""
    regulariser: str = "l2"
    """One of REGULARISERS, of the rows that an example has,"""
    regularisation: Annotated[float, Meta(ge=0)] = 0.01
    """and what it weighs."""
    learning_rate: Annotated[float, Meta(gt=0, le=10)] = 0.1
    block: Annotated[int, Meta(ge=1)] = 1024
    """Examples in a step."""


def weighted_squares(
    scores: Tensor, counts: Tensor, share: Tensor, rows: Tensor, listings: Tensor, alpha: float
) -> Tensor:
    """The weighted squares of a block of p pairs, summed (Hu, Koren and Volinsky, with confidences c = 1 + alpha r).

    `scores` [p] of the pairs and `counts` [p], their r; `rows` [p, d], each of which is one of so many of its row's
    pairs, `share` [p] the inverse; and all `listings` [n, d]. The sum of (x y)^2 over all y is x (Y'Y) x.
    """
    acted = (1 + alpha * counts) * (1 - scores).square() - scores.square()
    everything = ((rows @ (listings.T @ listings)) * rows).sum(dim=1)
    return (acted + share * everything).sum()


def train(corpus: Corpus, settings: MatrixFactorisation, run: Run) -> Floats:
    """Vectors for the n listings of the corpus, float32 [n, d]: of unit length, zeros for those that never stand in it."""
    loss = None if settings.loss == SQUARES else descent.named(LOSSES, "loss", settings.loss, SQUARES)
    regulariser = descent.named(REGULARISERS, "regulariser", settings.regulariser)
    random, device, counts = run.random, run.device, corpus.counts
    matrix = Interactions(corpus, settings.rows)
    noise = Unigram(counts, settings.noise_exponent)
    users = descent.random_table(random, matrix.rows, settings.dimensions, device)
    table = descent.random_table(random, len(counts), settings.dimensions, device)
    run.start(table)
    descend = descent.Adagrad({"users": users, "table": table}, settings.learning_rate)

    def vectors() -> Floats:
        return unit(table.cpu().numpy() * (counts > 0)[:, None])

    for _ in run.epochs(settings.epochs, descend.state, vectors):
        done = 0
        for block in matrix.blocks(settings.block, random):
            who = descend.rows("users", torch.from_numpy(block.rows).to(device))
            what = descend.rows("table", torch.from_numpy(block.listings).to(device))
            scores = (who * what).sum(dim=1)
            kept = regulariser(who) + regulariser(what)
            if loss is None:
                often = torch.from_numpy(block.counts).to(device)
                share = torch.from_numpy((1 / matrix.per_row[block.rows]).astype(np.float32)).to(device)
                value = weighted_squares(scores, often, share, who, descend.whole("table"), settings.alpha)
            else:
                drawn = noise.draw(random, len(block.rows), settings.negatives)
                others = descend.rows("table", torch.from_numpy(drawn).to(device))
                negative = (others @ who[:, :, None]).squeeze(2)
                acted = torch.from_numpy(block.acted(drawn)).to(device)
                value = loss(scores, negative.masked_fill(acted, NEVER)).sum()
                kept = kept + regulariser(others)
            descend.step(value + settings.regularisation * kept)
            done += len(block.rows)
            run.step(value.item(), len(block.rows), done, matrix.total)
    return vectors()
