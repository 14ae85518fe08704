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
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.errors import UserError
from models.training import _skip_gram, noise, pairs
from models.training.losses import LOSSES, REGULARISERS
from models.training.noise import Noise
from models.training.pairs import Corpus, Sessions

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

COMPILED = ("log-sigmoid", "none")
"""Loss and regulariser of the compiled code."""
SMALLEST = 1e-6
"""What an accumulator begins with."""


@dataclass(frozen=True, slots=True)
class SkipGram:
    """The settings of the training."""

    dimensions: int = 32
    epochs: int = 10
    window: int = 5
    """A context is at most so many clicks away."""
    negatives: int = 5
    """Drawn from everywhere for each pair,"""
    market_negatives: int = 0
    """and from the market of its centre."""
    noise_exponent: float = 0.75
    """Negatives are drawn by frequency to this power."""
    learning_rate: float = 0.3
    booked_context: bool = True
    """Whether the listing that a session booked is a context of each of its clicks."""
    booked_times: int = 1
    """How often an epoch goes through a session that booked."""
    shortest_click: float = 0.0
    """Clicks known to be shorter, in seconds, are dropped."""
    drop_single: bool = True
    """Whether sessions of one click are dropped; else they count for how often a listing is drawn."""
    subsampling: float = 0.0
    """Clicks on listings of a greater share than this are dropped at random, the more the more frequent; 0: none."""
    loss: str = "log-sigmoid"
    regulariser: str = "none"
    reg: float = 0.0
    """What the regulariser weighs."""
    block: int = 1024
    """Clicks that are learned from together where autograd finds the gradient."""


def train(
    corpus: Corpus,
    settings: SkipGram,
    random: np.random.Generator,
    *,
    threads: int = 1,
    device: str = "cpu",
    on_progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Floats:
    """Vectors for the listings of the corpus, float32 [n, d]: of unit length, or zeros where nothing is known of one.

    What is in memory grows with the listings alone. Raises UserError for a loss or regulariser that isn't there.
    """
    for name, known in ((settings.loss, LOSSES), (settings.regulariser, REGULARISERS)):
        if name not in known:
            raise UserError(f"skip-gram knows no {name!r}; there are {', '.join(known)}")
    compiled = (settings.loss, settings.regulariser) == COMPILED and device == "cpu"
    parts = corpus.parts()
    fewest = 2 if settings.drop_single else 1
    counts = np.zeros(corpus.size, np.int64)
    for part in parts:
        kept = pairs.read(corpus, *part, settings.shortest_click, fewest)
        counts += np.bincount(kept.tokens, minlength=corpus.size)
    if not counts.any():
        return np.zeros((corpus.size, settings.dimensions), np.float32)
    drawn = noise.noise(counts, corpus.markets, settings.noise_exponent)
    chances = pairs.chances(counts, settings.subsampling) if settings.subsampling else None

    tables = Tables.begun(corpus.size, settings.dimensions, random, device)
    learned, total = 0, settings.epochs * (len(corpus.starts) - 1)
    for epoch in range(settings.epochs):
        spent, many = 0.0, 0
        for first, last in (parts[place] for place in random.permutation(len(parts)).tolist()):
            kept = pairs.read(corpus, first, last, settings.shortest_click, fewest)
            sessions = pairs.shuffled(kept, chances, settings.booked_times, random)
            if not settings.booked_context:
                sessions.booked[:] = -1
            step = _pair_by_pair if compiled else _by_autograd
            loss, count = step(tables, sessions, drawn, settings, random, threads)
            spent, many, learned = spent + loss, many + count, learned + last - first
            on_progress(learned, total, f"epoch {epoch + 1}, loss {spent / max(many, 1):.3f}")
    return tables.vectors()


@dataclass(frozen=True, slots=True)
class Tables:
    """Vectors of listings as centres and as contexts, [n, d] each, and their accumulators, [n]."""

    centres: Tensor
    contexts: Tensor
    centre_sums: Tensor
    context_sums: Tensor

    @staticmethod
    def begun(size: int, dimensions: int, random: np.random.Generator, device: str) -> Tables:
        scale = 0.5 / dimensions
        centres = torch.from_numpy(random.uniform(-scale, scale, (size, dimensions)).astype(np.float32))
        sums = torch.full((size,), SMALLEST)
        return Tables(
            *(tensor.to(device) for tensor in (centres, torch.zeros_like(centres), sums, sums.clone()))
        )

    def vectors(self) -> Floats:
        """The centres that have moved, at length one."""
        moved = self.centre_sums > SMALLEST
        return unit((self.centres * moved[:, None]).cpu().numpy())


def _pair_by_pair(
    tables: Tables,
    sessions: Sessions,
    drawn: Noise,
    settings: SkipGram,
    random: np.random.Generator,
    threads: int,
) -> tuple[float, int]:
    """Learns from the sessions in compiled code; the summed loss and of how many pairs."""
    return _skip_gram.fit(
        _skip_gram.Tables(
            tables.centres.numpy(),
            tables.contexts.numpy(),
            tables.centre_sums.numpy(),
            tables.context_sums.numpy(),
        ),
        _skip_gram.Noise(drawn.listings, drawn.ends, drawn.guide, drawn.low, drawn.high, noise.TRIES),
        sessions.tokens,
        sessions.starts,
        sessions.booked,
        settings.window,
        settings.negatives,
        settings.market_negatives,
        settings.learning_rate,
        int(random.integers(2**63)),
        threads,
    )


def _by_autograd(
    tables: Tables,
    sessions: Sessions,
    drawn: Noise,
    settings: SkipGram,
    random: np.random.Generator,
    threads: int,
) -> tuple[float, int]:
    """The same for any loss and regulariser, and in blocks."""
    spent, many, device = 0.0, 0, tables.centres.device
    for first in range(0, len(sessions.tokens), settings.block):
        last = min(first + settings.block, len(sessions.tokens))
        centre, context = pairs.positives(sessions, first, last, settings.window, random)
        if not len(centre):
            continue
        negative = drawn.draw(context, settings.negatives, settings.market_negatives, centre, random)
        rows = torch.from_numpy(np.column_stack([context, negative])).to(device)
        centres = torch.from_numpy(centre).to(device)

        vectors = tables.centres[centres].requires_grad_()
        others = tables.contexts[rows].requires_grad_()
        scores = (others @ vectors[:, :, None]).squeeze(2)
        cost = LOSSES[settings.loss](scores[:, 0], scores[:, 1:]).sum()
        held = REGULARISERS[settings.regulariser](torch.cat([vectors, others.flatten(0, 1)]))
        moves = torch.autograd.grad(cost + settings.reg * held, (vectors, others))
        descend(tables.centres, tables.centre_sums, centres, moves[0], settings.learning_rate)
        descend(
            tables.contexts, tables.context_sums, rows.flatten(), moves[1].flatten(0, 1), settings.learning_rate
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
