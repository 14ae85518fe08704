"""Sessions with a structure that a method has to find."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from models.listings import Listing
from models.training.corpus import Corpus, Floats
from tests.made import a_corpus

GROUPS = 3
torch.set_num_threads(1)  # several would wait for each other, and add up in an order of their own


def planted(each: int = 6, sessions: int = 200, seed: int = 0, known: Iterable[Listing] = ()) -> Corpus:
    """Sessions that stay within one group of listings: listing i is of group i % GROUPS."""
    random = np.random.default_rng(seed)
    return a_corpus(
        (random.permutation(each)[:4] * GROUPS + random.integers(GROUPS) for _ in range(sessions)), known
    )


def agreement(vectors: Floats) -> float:
    """The share of listings whose nearest is of their own group."""
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -2)
    group = np.arange(len(vectors)) % GROUPS
    return float((group[similarity.argmax(axis=1)] == group).mean())
