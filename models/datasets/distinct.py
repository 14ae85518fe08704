"""How many different things there are among millions, in eight bytes each, and how many are found in several places."""

from __future__ import annotations

from array import array
from collections.abc import Hashable

import numpy as np
import numpy.typing as npt

GATHER = 1 << 20
"""So many new hashes are gathered before they are sorted in."""

Hashes = npt.NDArray[np.int64]


class Distinct:
    """A set of 64-bit hashes; only counts and membership come out, so that which hash a process gives does not matter.

    Among n things two have one hash with a probability of about n^2 / 2^65: 3e-6 among ten million.
    """

    def __init__(self) -> None:
        self._sorted: Hashes = np.empty(0, np.int64)
        self._new = array("q")
        self._due = GATHER

    def add(self, thing: Hashable) -> None:
        self._new.append(hash(thing))
        if len(self._new) >= self._due:
            self._gather()

    def _gather(self) -> None:
        if not self._new:
            return
        self._sorted = np.union1d(self._sorted, np.frombuffer(self._new, np.int64))
        self._new = array("q")
        self._due = max(GATHER, len(self._sorted) // 2)

    def __len__(self) -> int:
        self._gather()
        return len(self._sorted)

    def holds(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """bool [n]: which of int64 [n] hashes are in it."""
        self._gather()
        places = np.searchsorted(self._sorted, hashes)
        found = np.zeros(len(hashes), bool)
        inside = places < len(self._sorted)
        found[inside] = self._sorted[places[inside]] == hashes[inside]
        return found


class Homes:
    """Things and the places where each is found, as hashes in 16 bytes for each pair of both, told apart as by `Distinct`."""

    def __init__(self) -> None:
        self._sorted: Hashes = np.empty((0, 2), np.int64)
        self._new = array("q")
        self._due = GATHER

    def add(self, thing: Hashable, place: Hashable) -> None:
        self._new.append(hash(thing))
        self._new.append(hash(place))
        if len(self._new) >= 2 * self._due:
            self._gather()

    def _gather(self) -> None:
        pairs = np.concatenate((self._sorted, np.frombuffer(self._new, np.int64).reshape(-1, 2)))
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        first = np.ones(len(pairs), bool)
        first[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
        self._sorted = pairs[first]
        self._new = array("q")
        self._due = max(GATHER, len(self._sorted) // 2)

    def count(self) -> tuple[int, int]:
        """How many things there are, and how many of them are in more than one place."""
        self._gather()
        places = np.unique(self._sorted[:, 0], return_counts=True)[1]
        return len(places), int((places > 1).sum())
