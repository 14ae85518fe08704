"""What a session encoder sees: the steps before a step of a session, and what each weighs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.encoder import Mean
from models.history import LONG_CLICK_SECONDS
from models.training.corpus import KINDS, Corpus, Floats, Ints


@dataclass(frozen=True, slots=True)
class Contexts:
    """The t steps of some sessions."""

    tokens: Ints
    """[t]: the listing of each, repeated ones too."""
    first: Ints
    """[t]: where its session begins."""
    weights: Floats
    """[2, t]: what each weighs while it is the newest, and later, when it is known how long it lasted."""

    @classmethod
    def of(cls, part: Corpus) -> Contexts:
        """Those of all sessions of a part of a corpus, weighed as the encoder weighs them."""
        mean = Mean()
        newest = np.array([getattr(mean, kind) for kind in KINDS], np.float32)[part.kinds]
        long = (part.kinds == KINDS.index("click")) & (part.seconds >= LONG_CLICK_SECONDS)
        later = np.where(long, np.float32(mean.long_click), newest)
        first = np.repeat(part.starts[:-1], np.diff(part.starts))
        return cls(part.tokens.astype(np.int64), first, np.stack([newest, later]))

    @property
    def targets(self) -> Ints:
        """The steps before which there is another in their session."""
        return np.flatnonzero(self.first < np.arange(len(self.first)))

    def before(self, places: Ints, ages: int) -> tuple[Ints, Floats]:
        """The steps before each of the places, [b], newest first: int64 [b, ages] of listings, and what they weigh,
        float32 [b, ages], 0 where there is none."""
        before = places[:, None] - 1 - np.arange(ages)
        there = before >= self.first[places][:, None]
        before = np.maximum(before, 0)
        weights = there * self.weights[1][before]
        weights[:, 0] = there[:, 0] * self.weights[0][before[:, 0]]
        return self.tokens[before], weights
