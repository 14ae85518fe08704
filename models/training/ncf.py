"""Neural collaborative filtering (NeuMF) and the plain dot product, side by side on the same examples.

He, Liao, Zhang, Nie, Hu and Chua, "Neural collaborative filtering", WWW 2017: NeuMF joins a generalised matrix
factorisation and a multilayer perceptron, each with tables of its own (section 3.4), and is fitted by the log loss.
Rendle, Krichene, Zhang and Anderson, "Neural collaborative filtering vs. matrix factorization revisited", RecSys
2020, hold it against a dot product with biases of the same number of dimensions, the same loss and the same
negatives; so does this file, with the biases beside the dimensions, not the first of them. Both are measured as in
the two papers: of some rows the last listing is left out, and ranked among 100 that the row did not act on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
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

Ints = npt.NDArray[np.int64]
Take = Callable[[str, Tensor], Tensor]
"""Rows of a table,"""
Weigh = Callable[[str], Tensor]
"""and a weight."""

MOST = 1_000
"""Rows whose last listing is left out, at most, and no more than a tenth of them."""
AMONG, TOP = 100, 10


@dataclass(frozen=True, slots=True)
class NeuralCollaborativeFiltering:
    """The settings of the training."""

    dimensions: Annotated[int, Meta(ge=2, le=1024)] = 32
    """Of the factorisation, the perceptron's tables and the dot product, each."""
    epochs: Annotated[int, Meta(ge=1)] = 20
    rows: Rows = "session"
    """Whose vectors stand beside the listings': each session's, or each user's."""
    layers: Annotated[int, Meta(ge=1, le=8)] = 3
    """Of the perceptron, each half as wide as the one before."""
    vectors: Literal["gmf", "dot"] = "gmf"
    """Whose listing vectors the bundle gets: those of NeuMF's factorisation, or the dot product's."""
    loss: str = "log-sigmoid"
    """One of LOSSES."""
    negatives: Annotated[int, Meta(ge=1, le=1000)] = 4
    """Listings not acted on, drawn for each that was."""
    noise_exponent: Annotated[float, Meta(ge=-1, le=1)] = 0.0
    """Negatives are drawn by frequency to this power."""
    regulariser: str = "l2"
    """One of REGULARISERS, of the dot product's rows that an example has,"""
    regularisation: Annotated[float, Meta(ge=0)] = 0.01
    """and what it weighs."""
    learning_rate: Annotated[float, Meta(gt=0, le=10)] = 0.01
    block: Annotated[int, Meta(ge=1)] = 1024
    """Examples in a step."""


def neumf(take: Take, weigh: Weigh, layers: int, who: Tensor, what: Tensor) -> Tensor:
    """NeuMF's scores of rows `who` [p] and listings `what` [p, k]: float32 [p, k] (He et al., section 3.4)."""
    factors = take("gmf.rows", who)[:, None, :] * take("gmf.listings", what)
    left, right = take("mlp.rows", who), take("mlp.listings", what)
    hidden = torch.cat([left[:, None, :].expand_as(right), right], dim=2)
    for layer in range(layers):
        hidden = (hidden @ weigh(f"mlp.{layer}") + weigh(f"mlp.{layer}.bias")).relu()
    return torch.cat([factors, hidden], dim=2) @ weigh("output") + weigh("output.bias")


def dot(take: Take, weigh: Weigh, who: Tensor, what: Tensor) -> Tensor:
    """The dot product with biases, of the same shapes (Rendle et al.)."""
    products = (take("dot.listings", what) @ take("dot.rows", who)[:, :, None]).squeeze(2)
    biases = take("bias.rows", who) + take("bias.listings", what).squeeze(2)
    return products + biases + weigh("bias")


def train(corpus: Corpus, settings: NeuralCollaborativeFiltering, run: Run) -> Floats:
    """Vectors for the n listings of the corpus, float32 [n, d]: of unit length, zeros for those that never stand in it.

    Those of NeuMF's factorisation, each dimension by the root of what its product weighs in the score. What both reach
    is in `run.metrics`.
    """
    loss = descent.named(LOSSES, "loss", settings.loss)
    regulariser = descent.named(REGULARISERS, "regulariser", settings.regulariser)
    random, device, counts = run.random, run.device, corpus.counts
    matrix = Interactions(corpus, settings.rows)
    asked, wanted = _left_out(corpus, matrix, random)
    matrix.leave_out(asked, wanted)
    noise, kept = Unigram(counts, settings.noise_exponent), counts > 0
    among = _others(corpus, matrix, asked, Unigram(counts, 0.0), random)

    parameters = _tables(matrix.rows, len(counts), settings, random, device)
    run.start(parameters["gmf.listings"])
    run.start(parameters["dot.listings"])
    descend = descent.Adagrad(parameters, settings.learning_rate)

    def vectors() -> Floats:
        if settings.vectors == "dot":
            return unit(parameters["dot.listings"].cpu().numpy() * kept[:, None])
        weights = parameters["output"][: settings.dimensions].abs().sqrt()
        return unit((parameters["gmf.listings"] * weights).cpu().numpy() * kept[:, None])

    for _ in run.epochs(settings.epochs, descend.state, vectors):
        done = 0
        for block in matrix.blocks(settings.block, random):
            drawn = noise.draw(random, len(block.rows), settings.negatives)
            who = torch.from_numpy(block.rows).to(device)
            what = torch.from_numpy(np.column_stack([block.listings, drawn])).to(device)
            acted = torch.from_numpy(block.acted(drawn)).to(device)
            value = torch.zeros((), device=device)
            for scores in (
                neumf(descend.rows, descend.whole, settings.layers, who, what),
                dot(descend.rows, descend.whole, who, what),
            ):
                value = value + loss(scores[:, 0], scores[:, 1:].masked_fill(acted, NEVER)).sum()
            small = regulariser(descend.rows("dot.rows", who)) + regulariser(
                descend.rows("dot.listings", what)
            )
            descend.step(value + settings.regularisation * small)
            done += len(block.rows)
            run.step(value.item(), 2 * len(block.rows), done, matrix.total)

    who, what = torch.from_numpy(asked).to(device), torch.from_numpy(np.column_stack([wanted, among]))
    what = what.to(device)

    def take(name: str, which: Tensor) -> Tensor:
        return parameters[name][which]

    run.metrics |= {"left_out": len(asked)}
    run.metrics |= measured(
        "neumf", neumf(take, parameters.__getitem__, settings.layers, who, what).cpu().numpy()
    )
    run.metrics |= measured("dot", dot(take, parameters.__getitem__, who, what).cpu().numpy())
    return vectors()


def measured(name: str, scores: Floats) -> dict[str, float]:
    """HR@10 and NDCG@10 of the first of each row of scores, [r, 1 + AMONG], among the others (He et al., section 4.1);
    equal scores go before it."""
    if not len(scores):
        return {}
    rank = (scores[:, 1:] >= scores[:, :1]).sum(axis=1)
    found = rank < TOP
    gain = np.where(found, 1 / np.log2(rank + 2), 0)
    return {f"{name}_hr@{TOP}": float(found.mean()), f"{name}_ndcg@{TOP}": float(gain.mean())}


def _tables(
    rows: int,
    size: int,
    settings: NeuralCollaborativeFiltering,
    random: np.random.Generator,
    device: torch.device,
) -> dict[str, Tensor]:
    """The parameters of both, by name."""
    width, tables = settings.dimensions, {}
    for name in ("gmf", "mlp", "dot"):
        tables[f"{name}.rows"] = descent.random_table(random, rows, width, device)
        tables[f"{name}.listings"] = descent.random_table(random, size, width, device)
    widths = [max(2, 2 * width >> layer) for layer in range(settings.layers + 1)]
    for layer, (wide, narrow) in enumerate(pairwise(widths)):
        scale = (6 / (wide + narrow)) ** 0.5
        tables[f"mlp.{layer}"] = _uniform(random, scale, (wide, narrow), device)
        tables[f"mlp.{layer}.bias"] = torch.zeros(narrow, device=device)
    tables["output"] = _uniform(random, (3 / (width + widths[-1])) ** 0.5, (width + widths[-1],), device)
    tables["output.bias"] = torch.zeros((), device=device)
    tables["bias.rows"] = torch.zeros(rows, 1, device=device)
    tables["bias.listings"] = torch.zeros(size, 1, device=device)
    tables["bias"] = torch.zeros((), device=device)
    return tables


def _uniform(
    random: np.random.Generator, scale: float, shape: tuple[int, ...], device: torch.device
) -> Tensor:
    return torch.from_numpy(random.uniform(-scale, scale, shape).astype(np.float32)).to(device)


def _left_out(corpus: Corpus, matrix: Interactions, random: np.random.Generator) -> tuple[Ints, Ints]:
    """Rows of at least three listings, drawn, and the last listing of each that stands elsewhere too: int64 [r], twice."""
    last: Ints = np.zeros(matrix.rows, np.int64)
    last[matrix.of_session] = corpus.starts[1:] - 1  # of a user, the newest session comes last
    wanted = np.asarray(corpus.tokens[last], np.int64)
    fit = np.flatnonzero((matrix.per_row >= 3) & (corpus.counts[wanted] > 1))
    asked = np.sort(random.permutation(fit)[: min(MOST, matrix.rows // 10)])
    return asked, wanted[asked]


def _others(
    corpus: Corpus, matrix: Interactions, asked: Ints, noise: Unigram, random: np.random.Generator
) -> Ints:
    """For each row asked, AMONG listings that it did not act on: int64 [r, AMONG]; the same again where there are few."""
    drawn = noise.draw(random, len(asked), AMONG)
    session = np.flatnonzero(np.isin(matrix.of_session, asked))
    acted: list[set[int]] = [set() for _ in asked]
    for number in session.tolist():
        tokens = corpus.tokens[corpus.starts[number] : corpus.starts[number + 1]]
        acted[int(np.searchsorted(asked, matrix.of_session[number]))].update(tokens.tolist())
    for of, known in enumerate(acted):
        for _ in range(100):
            again = np.flatnonzero(np.isin(drawn[of], list(known)))
            if not len(again):
                break
            drawn[of, again] = noise.draw(random, len(again))
    return drawn
