"""How good vectors are while they are learned: the next click of later sessions, which they are not fitted to."""

from __future__ import annotations

import numpy as np

from models.encoder import Learned, Mean
from models.training.contexts import Contexts
from models.training.corpus import Corpus, Floats, Ints

TOP = 20
MOST = 2_000
"""Steps that are looked for, at most."""
STEPS = 20
"""What is further back counts for nothing: .7 to the power of 20 is less than a thousandth."""
SAMPLE = 1_000_000


def times(corpus: Corpus) -> Ints:
    """The times (ms) of the actions in order; of a sample where there are many."""
    return np.sort(corpus.times[:: max(1, len(corpus.times) // SAMPLE)])


def until(corpus: Corpus, share: float) -> int:
    """The time (ms) from which the last `share` of the actions is; 0 where there are none."""
    sample = times(corpus)
    return int(np.quantile(sample, 1 - share)) if len(sample) else 0


def mrr(vectors: Floats, sessions: Corpus, learned: Learned | None = None) -> float:
    """MRR@20 of the next listing among all, by the dot product of its vector, of [n, d], with what the encoder makes of
    the steps before it in its session, the decayed mean where none was `learned` (Hidasi et al., "Session-based
    recommendations with recurrent neural networks", 2016, for the protocol). Listings without a vector can't be found,
    and equal ones stand before the wanted one."""
    known = vectors.any(axis=-1).reshape(-1)
    ages = Mean().decay ** np.arange(STEPS, dtype=np.float32)[:, None] if learned is None else learned.ages
    start = np.float32(0) if learned is None else learned.start
    total = asked = 0.0
    for span in sessions.parts():
        contexts = Contexts.of(sessions.part(*span))
        targets = contexts.targets[: MOST - int(asked)]
        asked += len(targets)
        for at in range(0, len(targets), 256):
            places = targets[at : at + 256]
            rows, weights = contexts.before(places, len(ages))
            scores = ((vectors[rows] * ages * weights[:, :, None]).sum(axis=1) + start) @ vectors.T
            scores[:, ~known] = -np.inf
            wanted = contexts.tokens[places]
            own = scores[np.arange(len(wanted)), wanted]
            rank = (scores >= own[:, None]).sum(axis=1)
            found = known[wanted] & (rank <= TOP)
            total += float((found / rank).sum())
        if asked >= MOST:
            break
    return total / asked if asked else 0.0
