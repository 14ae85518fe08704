"""Which listings are drawn as negatives: by frequency, from all or from one market."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Doubles = npt.NDArray[np.float64]

TRIES = 8
"""A negative that is its pair's own context is drawn again, so often at most."""


@dataclass(frozen=True, slots=True)
class Noise:
    """A distribution over the m listings that were acted on, of a catalogue of n, laid out along [0, 1): each market is
    an interval of it, each listing a part of its market's. A point drawn evenly from an interval is a listing drawn
    from the market by its share."""

    listings: Codes
    """int32 [m]: market after market."""
    ends: Doubles
    """float64 [m]: where each one's part ends."""
    guide: Codes
    """int32 [m]: the part that k / m lies in, from which a search need not go far (Chen and Asau, 1974)."""
    low: Doubles
    """float64 [n]: where the market of a listing begins,"""
    high: Doubles
    """float64 [n]: and ends. All of [0, 1) where it is unknown, or has but one listing that could be drawn."""

    def draw(self, contexts: Ints, many: int, near: int, centres: Ints, random: np.random.Generator) -> Ints:
        """Negatives of p pairs, int64 [p, many + near]: `many` from everywhere, `near` from the centre's market."""
        low = np.zeros((len(contexts), many + near))
        high = np.ones_like(low)
        low[:, many:], high[:, many:] = self.low[centres, None], self.high[centres, None]
        drawn = self._at(low + random.random(low.shape) * (high - low))
        for _ in range(TRIES - 1):
            wrong = drawn == contexts[:, None]
            if not wrong.any():
                break
            drawn[wrong] = self._at(low[wrong] + random.random(int(wrong.sum())) * (high - low)[wrong])
        return drawn

    def _at(self, points: Doubles) -> Ints:
        places = np.searchsorted(self.ends, points, side="right").clip(max=len(self.ends) - 1)
        drawn: Ints = self.listings[places].astype(np.int64)
        return drawn


class Unigram:
    """Listings, or whatever is counted, by how often they stand in a corpus, to a power: 0 draws all of these alike."""

    def __init__(self, counts: Ints, exponent: float) -> None:
        self._up_to: Doubles = np.cumsum(np.where(counts > 0, np.maximum(counts, 1) ** exponent, 0))

    @property
    def shares(self) -> Doubles:
        """float64 [n]: how often each is drawn."""
        shares: Doubles = np.diff(self._up_to, prepend=0.0) / self._up_to[-1]
        return shares

    def draw(self, random: np.random.Generator, *shape: int) -> Ints:
        """int64 [*shape]"""
        drawn: Ints = np.searchsorted(self._up_to, random.random(shape) * self._up_to[-1], side="right")
        return drawn


def noise(counts: Ints, markets: Codes, exponent: float) -> Noise:
    """Listings by how often they were acted on, `counts` int64 [n], to the power of `exponent` (Mikolov et al., 2013:
    3/4). `markets` int32 [n] are codes, -1 where unknown. Raises ValueError where all counts are zero."""
    drawable = np.flatnonzero(counts)
    if not len(drawable):
        raise ValueError("nothing was acted on: there are no negatives to draw")
    drawable = drawable[np.argsort(markets[drawable], kind="stable")]
    ends = np.cumsum(counts[drawable] ** exponent)
    ends /= ends[-1]
    guide = np.searchsorted(ends, np.arange(len(ends)) / len(ends), side="right").clip(max=len(ends) - 1)

    named, first, size = np.unique(markets[drawable], return_index=True, return_counts=True)
    begins = np.concatenate([[0.0], ends])
    place = np.searchsorted(named, markets).clip(max=len(named) - 1)
    whole = (named[place] != markets) | (markets < 0) | (size[place] < 2)
    return Noise(
        listings=drawable.astype(np.int32),
        ends=ends,
        guide=guide.astype(np.int32),
        low=np.where(whole, 0.0, begins[first[place]]),
        high=np.where(whole, 1.0, begins[(first + size)[place]]),
    )
