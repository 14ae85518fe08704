"""Rules `listing -> listing` with weights, in sparse rows, and the votes they give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.evaluation.visits import Visits

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rules:
    """Row i holds what listing i votes for: `others[starts[i]:starts[i + 1]]`, ascending, and their weights."""

    starts: Ints
    others: Ints
    weights: Floats

    @property
    def size(self) -> int:
        """How many listings."""
        return len(self.starts) - 1

    @property
    def rows(self) -> Ints:
        """Whose vote each weight is."""
        return np.repeat(np.arange(self.size), np.diff(self.starts))

    def votes(self, positions: int, position: Ints, items: Ints, weights: Floats) -> Floats:
        """The sums, [positions, n], of the rows of `items`, each times its weight, at its position."""
        lengths = self.starts[items + 1] - self.starts[items]
        vote = np.repeat(np.arange(len(items)), lengths)
        ahead = np.cumsum(lengths) - lengths
        at = np.arange(len(vote)) + (self.starts[items] - ahead)[vote]
        cell = position[vote] * self.size + self.others[at]
        return totals(cell, self.weights[at] * weights[vote], positions * self.size).reshape(-1, self.size)


def totals(codes: Ints, weights: Floats, size: int) -> Floats:
    """The sum of the weights of each code, [size]."""
    return np.bincount(codes, weights, size).astype(np.float64, copy=False)


def summed(voters: Ints, others: Ints, weights: Floats, size: int) -> Rules:
    """Rules of so many listings, from single votes: those of one listing for one other are added up."""
    cells, which = np.unique(voters * size + others, return_inverse=True)
    rows, columns = np.divmod(cells, size)
    starts = np.searchsorted(rows, np.arange(size + 1))
    return Rules(starts, columns, totals(which, weights, len(cells)))


def pairs(items: Ints, visit: Ints, reach: int) -> Iterator[tuple[int, Ints, Ints]]:
    """For each distance from 1 to `reach`: the earlier and the later listing of all pairs of one visit so far apart."""
    for distance in range(1, min(reach, len(items) - 1) + 1):
        same = visit[distance:] == visit[:-distance]
        yield distance, items[:-distance][same], items[distance:][same]


def counted(visits: Visits, reach: int, *, forward: float, backward: float) -> Rules:
    """How often listings were clicked near each other, each time 1 / distance: `forward` times as much for the earlier
    one's vote for the later, `backward` times for the later one's for the earlier."""
    voters, others, weights = [], [], []
    for distance, earlier, later in pairs(visits.items, visits.visit, reach):
        for voter, other, share in ((earlier, later, forward), (later, earlier, backward)):
            if share:
                voters.append(voter)
                others.append(other)
                weights.append(np.full(len(voter), share / distance))
    nothing = np.empty(0, np.int64)
    return summed(
        np.concatenate([nothing, *voters]),
        np.concatenate([nothing, *others]),
        np.concatenate([np.empty(0), *weights]),
        len(visits.listings),
    )
