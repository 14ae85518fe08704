"""Pairs of listings that were acted on near each other, in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from models.training.corpus import Corpus

Ints = npt.NDArray[np.int64]


def pairs(
    corpus: Corpus, window: int, size: int, random: np.random.Generator
) -> Iterator[tuple[Ints, Ints, int]]:
    """Two different listings of one session, at most `window` steps apart, each such pair of steps once: int64 [b] twice,
    and how many steps of the corpus are done.

    How far a step reaches is drawn for each, from 1 to `window`, so that what is nearer counts more often (Mikolov et
    al., "Efficient estimation of word representations in vector space", 2013). In random order within parts in random
    order.
    """
    spans, done = list(corpus.parts()), 0
    for at in random.permutation(len(spans)).tolist():
        part = corpus.part(*spans[at])
        tokens, session = part.tokens.astype(np.int64), part.session
        reach = random.integers(1, window + 1, len(tokens))
        left, right = [], []
        for apart in range(1, min(window, len(tokens) - 1) + 1):
            near = (session[apart:] == session[:-apart]) & (reach[:-apart] >= apart)
            near &= tokens[apart:] != tokens[:-apart]
            left.append(tokens[:-apart][near])
            right.append(tokens[apart:][near])
        one, other = np.concatenate(left or [tokens[:0]]), np.concatenate(right or [tokens[:0]])
        order = random.permutation(len(one))
        for start in range(0, len(order), size):
            these = order[start : start + size]
            yield one[these], other[these], done + len(tokens) * (start + len(these)) // len(order)
        done += len(tokens)
