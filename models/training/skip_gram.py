"""Skip-gram with negative sampling over sessions: listings acted on near each other get near vectors.

Mikolov et al., "Distributed representations of words and phrases and their compositionality", NIPS 2013; with
sessions for sentences, and what Grbovic and Cheng, "Real-time personalization using embeddings for search ranking at
Airbnb", KDD 2018, section 3.1, add: for a centre l, its contexts c (one of them the listing that its session booked),
negatives n drawn from everywhere and m from the market of l, what is made small is

    sum over c of  -log sigmoid(v'c . vl) - sum over n of log sigmoid(-v'n . vl) - sum over m of log sigmoid(-v'm . vl)

Each row moves by Adagrad (Duchi, Hazan and Singer, 2011) with one accumulator a row.

This loss without a regulariser is learned pair by pair in compiled code, skip_gram.cpp. Any other, and any on another
device, is learned in blocks of clicks by the loop below, where autograd finds the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Meta
from torch import Tensor

from models.errors import UserError
from models.training import _skip_gram, descent, noise, pairs
from models.training.corpus import Corpus
from models.training.losses import LOSSES, REGULARISERS
from models.training.noise import Noise
from models.training.pairs import Sessions
from models.training.run import Run

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

COMPILED = ("log-sigmoid", "none")
"""Loss and regulariser of the compiled code."""
SMALLEST = 1e-6
"""What an accumulator begins with."""
LENGTH = 2.0
"""How long the vectors of centres are at first, about: a listing of few clicks keeps much of a direction of its own, so
that it is near to nothing until there is reason. (word2vec begins with short ones, which a single click turns.)"""


@dataclass(frozen=True, slots=True)
class SkipGram:
    """The settings of the training."""

    dimensions: Annotated[int, Meta(ge=2, le=1024)] = 32
    epochs: Annotated[int, Meta(ge=1)] = 10
    window: Annotated[int, Meta(ge=1, le=100)] = 5
    """A context is at most so many clicks away."""
    negatives: Annotated[int, Meta(ge=0, le=1000)] = 5
    """Drawn from everywhere for each pair,"""
    market_negatives: Annotated[int, Meta(ge=0, le=1000)] = 0
    """and from the market of its centre."""
    noise_exponent: Annotated[float, Meta(ge=-1, le=1)] = 0.75
    """Negatives are drawn by frequency to this power."""
    learning_rate: Annotated[float, Meta(gt=0, le=10)] = 0.1
    booked_context: bool = True
    """Whether the listing that a session booked is a context of each of its clicks."""
    booked_times: Annotated[int, Meta(ge=1)] = 1
    """How often an epoch goes through a session that booked."""
    shortest_click: Annotated[float, Meta(ge=0)] = 0.0
    """Clicks known to be shorter, in seconds, are dropped."""
    fewest_clicks: Annotated[int, Meta(ge=1)] = 2
    """Sessions of fewer are dropped. One click has no context, and says only how frequent a listing is."""
    subsampling: Annotated[float, Meta(ge=0)] = 0.001
    """Clicks on listings of a greater share than this, and than the mean, are dropped at random in each epoch, the more
    the more frequent; 0: none."""
    loss: str = "log-sigmoid"
    regulariser: str = "none"
    regularisation: Annotated[float, Meta(ge=0)] = 0.0
    """What the regulariser weighs."""
    block: Annotated[int, Meta(ge=1)] = 1024
    """Clicks that are learned from together where autograd finds the gradient."""


def train(corpus: Corpus, settings: SkipGram, run: Run) -> Floats:
    """Vectors for the n listings of the corpus, float32 [n, d]: of unit length, or zeros where nothing is known of one.

    What is in memory grows with the listings alone. Raises UserError for a loss or regulariser that isn't there, and
    for negatives from the own market where no market is known.
    """
    learn = learner(settings, run)
    if settings.market_negatives and (corpus.listings.market_codes < 0).all():
        raise UserError(
            "skip-gram: `market_negatives` needs the markets of the listings, and none is known: give them with"
            " --listings FILE, or take 0"
        )
    size, parts = len(corpus.listings), list(corpus.parts(pairs.PART))
    counts = np.zeros(size, np.int64)
    for first, last in parts:
        sessions = pairs.read(corpus, first, last, settings.shortest_click, settings.fewest_clicks)
        counts += np.bincount(sessions.tokens, minlength=size)
    tables = Tables.begun(size, settings.dimensions, run)
    if not counts.any():
        return tables.vectors()
    drawn = noise.noise(counts, corpus.listings.market_codes, settings.noise_exponent)
    chances = pairs.chances(counts, settings.subsampling) if settings.subsampling else None

    for _ in run.epochs(settings.epochs, tables.state, tables.vectors):
        for done, place in enumerate(run.random.permutation(len(parts)).tolist()):
            first, last = parts[place]
            sessions = pairs.read(corpus, first, last, settings.shortest_click, settings.fewest_clicks)
            sessions = pairs.shuffled(sessions, chances, settings.booked_times, run.random)
            if not settings.booked_context:
                sessions.booked[:] = -1
            loss, many = learn(tables, sessions, drawn, settings, run)
            run.step(loss, many, done + 1, len(parts))
    return tables.vectors()


Learner = Callable[["Tables", Sessions, Noise, SkipGram, Run], tuple[float, int]]


def learner(settings: SkipGram, run: Run) -> Learner:
    """What learns from sessions in memory, and gives the summed loss and of how many pairs: compiled where it can be.

    Raises UserError for a loss or regulariser that isn't there.
    """
    descent.named(LOSSES, "loss", settings.loss)
    descent.named(REGULARISERS, "regulariser", settings.regulariser)
    compiled = (settings.loss, settings.regulariser) == COMPILED and run.device.type == "cpu"
    return _pair_by_pair if compiled else _by_autograd


@dataclass(frozen=True, slots=True)
class Tables:
    """Vectors of listings as centres and as contexts, [n, d] each, and their accumulators, [n]."""

    centres: Tensor
    contexts: Tensor
    centre_sums: Tensor
    context_sums: Tensor

    @staticmethod
    def begun(size: int, dimensions: int, run: Run) -> Tables:
        most = LENGTH * (3 / dimensions) ** 0.5
        centres = torch.from_numpy(run.random.uniform(-most, most, (size, dimensions)).astype(np.float32))
        run.start(centres)
        sums = torch.full((size,), SMALLEST)
        tables = (centres, torch.zeros_like(centres), sums, sums.clone())
        return Tables(*(table.to(run.device) for table in tables))

    @property
    def state(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def vectors(self) -> Floats:
        """The centres that have moved, at length one."""
        moved = self.centre_sums > SMALLEST
        return unit((self.centres * moved[:, None]).cpu().numpy())


def _pair_by_pair(
    tables: Tables, sessions: Sessions, drawn: Noise, settings: SkipGram, run: Run
) -> tuple[float, int]:
    """Learns from the sessions in compiled code; the summed loss and of how many pairs."""
    return _skip_gram.fit(
        _skip_gram.Tables(**{name: tensor.numpy() for name, tensor in tables.state.items()}),
        _skip_gram.Noise(drawn.listings, drawn.ends, drawn.guide, drawn.low, drawn.high, noise.TRIES),
        sessions.tokens,
        sessions.starts,
        sessions.booked,
        settings.window,
        settings.negatives,
        settings.market_negatives,
        settings.learning_rate,
        int(run.random.integers(2**63)),
        run.threads,
    )


def _by_autograd(
    tables: Tables, sessions: Sessions, drawn: Noise, settings: SkipGram, run: Run
) -> tuple[float, int]:
    """The same for any loss and regulariser, and in blocks."""
    spent, many = 0.0, 0
    for first in range(0, len(sessions.tokens), settings.block):
        last = min(first + settings.block, len(sessions.tokens))
        centre, context = pairs.positives(sessions, first, last, settings.window, run.random)
        if not len(centre):
            continue
        negative = drawn.draw(context, settings.negatives, settings.market_negatives, centre, run.random)
        rows = torch.from_numpy(np.column_stack([context, negative])).to(run.device)
        centres = torch.from_numpy(centre).to(run.device)

        vectors = tables.centres[centres].requires_grad_()
        others = tables.contexts[rows].requires_grad_()
        scores = (others @ vectors[:, :, None]).squeeze(2)
        cost = LOSSES[settings.loss](scores[:, 0], scores[:, 1:]).sum()
        held = REGULARISERS[settings.regulariser](torch.cat([vectors, others.flatten(0, 1)]))
        moves = torch.autograd.grad(cost + settings.regularisation * held, (vectors, others))
        descend(tables.centres, tables.centre_sums, centres, moves[0], settings.learning_rate)
        descend(
            tables.contexts,
            tables.context_sums,
            rows.flatten(),
            moves[1].flatten(0, 1),
            settings.learning_rate,
        )
        spent, many = spent + cost.item(), many + len(centre)
    return spent, many


def descend(table: Tensor, sums: Tensor, rows: Tensor, moves: Tensor, learning_rate: float) -> None:
    """Row-wise Adagrad: the moves of a row that stands more than once are added up first."""
    distinct, which = torch.unique(rows, return_inverse=True)
    move = torch.zeros(len(distinct), moves.shape[1], device=moves.device).index_add_(0, which, moves)
    size = sums[distinct] + move.square().mean(dim=1)
    sums[distinct] = size
    table[distinct] -= learning_rate * move / size.sqrt()[:, None]


def unit(vectors: Floats) -> Floats:
    """The vectors, [n, d], at length one; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return scaled
