"""Skip-gram with negative sampling over sessions: listings acted on near each other get near vectors.

Mikolov et al., "Distributed representations of words and phrases and their compositionality", NIPS 2013; with
sessions for sentences as in Grbovic and Cheng, "Real-time personalization using embeddings for search ranking at
Airbnb", KDD 2018. Positives come in blocks of neighbouring positions that share their negatives; the gradient is
taken on the rows a block gathered, and each row moves by Adagrad with one accumulator a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Meta
from torch import Tensor
from torch.nn.functional import logsigmoid

from models.training.corpus import Corpus
from models.training.run import Run

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SkipGram:
    """The settings of the training."""

    dimensions: Annotated[int, Meta(ge=2, le=1024)] = 32
    epochs: Annotated[int, Meta(ge=1)] = 10
    window: Annotated[int, Meta(ge=1, le=100)] = 5
    negatives: int = 5
    """Weight of the negatives: as if each positive had so many of its own."""
    shared: int = 128
    """Negatives drawn for a block."""
    block: int = 1024
    """Positions in a block."""
    smoothing: float = 0.75
    """Negatives are drawn by frequency to this power."""
    learning_rate: float = 0.3


def loss(centres: Tensor, windows: Tensor, wanted: Tensor, negatives: Tensor, share: Tensor) -> Tensor:
    """The loss of a block: `centres` [b, d], `windows` [b, 2w+1, d] around them, `wanted` [b, 2w+1] which of those
    are positives, `negatives` [k, d] and `share` [b, 1], what one of them weighs for a centre."""
    positive = (windows * centres[:, None, :]).sum(dim=2)
    negative = centres @ negatives.T
    return -(logsigmoid(positive) * wanted).sum() - (logsigmoid(-negative) * share).sum()


def train(corpus: Corpus, settings: SkipGram, run: Run) -> Floats:
    """Vectors for the n listings of the corpus, float32 [n, d]: of unit length, zeros for those that never stand in it."""
    random, reach = run.random, settings.window
    counts = corpus.counts
    size, scale = len(counts), 0.5 / settings.dimensions
    table = torch.from_numpy(random.uniform(-scale, scale, (size, settings.dimensions)).astype(np.float32))
    run.start(table)
    around = torch.zeros_like(table)
    sums, sums_around = torch.full((size, 1), 1e-6), torch.full((size, 1), 1e-6)
    drawn = np.cumsum(counts**settings.smoothing * (counts > 0))
    state = {"table": table, "around": around, "sums": sums, "sums_around": sums_around}

    def vectors() -> Floats:
        return unit(table.numpy() * (counts > 0)[:, None])

    for _ in run.epochs(settings.epochs, state, vectors):
        tokens, sessions = _shuffled(corpus, reach, random)
        far = random.integers(1, reach + 1, len(tokens))
        for start in range(reach, len(tokens) - reach, settings.block):
            end = min(start + settings.block, len(tokens) - reach)
            span = tokens[start - reach : end + reach]
            negative = np.searchsorted(drawn, random.random(settings.shared) * drawn[-1], side="right")
            wanted = _wanted(span, sessions[start - reach : end + reach], far[start:end], reach)
            share = wanted.sum(axis=1, keepdims=True) * np.float32(settings.negatives / settings.shared)

            rows = torch.from_numpy(np.concatenate([span, negative]))
            centre = torch.from_numpy(span[reach : len(span) - reach])
            centres = table[centre].requires_grad_()
            others = around[rows].requires_grad_()
            windows = others[: len(span)].unfold(0, 2 * reach + 1, 1).transpose(1, 2)
            value = loss(
                centres, windows, torch.from_numpy(wanted), others[len(span) :], torch.from_numpy(share)
            )
            moves = torch.autograd.grad(value, (centres, others))
            _descend(table, sums, centre, moves[0], settings.learning_rate)
            _descend(around, sums_around, rows, moves[1], settings.learning_rate)
            run.step(value.item(), end - start, end - reach, len(tokens) - 2 * reach)
    return vectors()


def _shuffled(corpus: Corpus, reach: int, random: np.random.Generator) -> tuple[Ints, Ints]:
    """Tokens and sessions with the sessions in a new order, padded by `reach` on both sides."""
    session = corpus.session
    order = np.argsort(random.permutation(corpus.sessions)[session], kind="stable")
    tokens = corpus.tokens[order].astype(np.int64)
    return np.pad(tokens, reach), np.pad(session[order], reach, constant_values=-1)


def _wanted(tokens: Ints, sessions: Ints, far: Ints, reach: int) -> Floats:
    """Which places around each centre are positives, float32 [b, 2w+1]: of the same session, no farther than
    `far` (a nearer one counts more often), and not the centre's own listing."""
    view = np.lib.stride_tricks.sliding_window_view
    inner = slice(reach, len(tokens) - reach)
    distance = np.abs(np.arange(-reach, reach + 1))
    wanted: npt.NDArray[np.bool_] = view(sessions, 2 * reach + 1) == sessions[inner, None]
    wanted &= view(tokens, 2 * reach + 1) != tokens[inner, None]
    wanted &= distance <= far[:, None]
    return wanted.astype(np.float32)


def _descend(table: Tensor, sums: Tensor, rows: Tensor, moves: Tensor, learning_rate: float) -> None:
    """Row-wise Adagrad: the moves of a row that stands more than once are added up first."""
    distinct, which = torch.unique(rows, return_inverse=True)
    move = torch.zeros(len(distinct), moves.shape[1]).index_add_(0, which, moves)
    size = sums[distinct] + move.square().mean(dim=1, keepdim=True)
    sums[distinct] = size
    table[distinct] -= learning_rate * move / size.sqrt()


def unit(vectors: Floats) -> Floats:
    """The vectors, [n, d], at length one; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return scaled
