"""How good vectors are while they are learned: the next click of later sessions, which they are not fitted to."""

from __future__ import annotations

import numpy as np

from models.encoder import Mean
from models.training.corpus import Corpus, Floats

TOP = 20
MOST = 2_000
"""Clicks that are looked for, at most."""
STEPS = 20
"""What is further back counts for nothing: .7 to the power of 20 is less than a thousandth."""


def until(corpus: Corpus, share: float) -> int:
    """The time (ms) from which the last `share` of the actions is; of a sample where there are many."""
    sample = np.asarray(corpus.times[:: max(1, len(corpus.times) // 1_000_000)])
    return int(np.quantile(sample, 1 - share))


def mrr(vectors: Floats, sessions: Corpus) -> float:
    """MRR@20 of the next listing, by the dot product of its vector, of [n, d], with the decayed mean of the vectors
    before it in its session (Hidasi et al., "Session-based recommendations with recurrent neural networks", 2016, for
    the protocol). Listings without a vector can't be found."""
    known = vectors.any(axis=-1).reshape(-1)
    decay = Mean().decay
    queries, targets = [], []
    for number in range(sessions.sessions):
        tokens = sessions.tokens[sessions.starts[number] : sessions.starts[number + 1]]
        for at in range(1, len(tokens)):
            before = tokens[max(0, at - STEPS) : at]
            weights = np.power(decay, np.arange(len(before) - 1, -1, -1))
            queries.append(weights.astype(np.float32) @ vectors[before])
            targets.append(tokens[at])
        if len(targets) >= MOST:
            break
    if not targets:
        return 0.0
    total = 0.0
    for start in range(0, len(targets), 256):
        scores = np.stack(queries[start : start + 256]) @ vectors.T
        scores[:, ~known] = -np.inf
        wanted = np.array(targets[start : start + 256])
        own = scores[np.arange(len(wanted)), wanted]
        rank = 1 + (scores > own[:, None]).sum(axis=1)
        found = known[wanted] & (rank <= TOP)
        total += float((found / rank).sum())
    return total / len(targets)
