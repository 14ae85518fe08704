"""Who acted on what, without order: the matrix that factorisations take, in blocks of its entries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.training.corpus import Corpus

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

Rows = Literal["session", "user"]


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries of the matrix: that a row acted on a listing, and how often."""

    rows: Ints
    """int64 [b]"""
    listings: Ints
    """int64 [b]"""
    counts: Ints
    """int64 [b]"""
    _known: Ints
    """All entries of the part that these are from, sorted, as row * n + listing."""
    _size: int

    def acted(self, listings: Ints) -> Bools:
        """Which of `listings`, [b, k], the entries' rows acted on as well."""
        keys = self.rows[:, None] * self._size + listings
        at = np.searchsorted(self._known, keys).clip(max=len(self._known) - 1)
        found: Bools = self._known[at] == keys
        return found


class Interactions:
    """The matrix of a corpus: a row for each session or each user, a column for each listing."""

    def __init__(self, corpus: Corpus, by: Rows) -> None:
        self.corpus = corpus
        self.of_session: Ints = np.arange(corpus.sessions)
        """int64 [s]: the row of each session."""
        self._without: Ints = np.empty(0, np.int64)
        if by == "user":
            self.of_session = np.unique(corpus.users, return_inverse=True)[1].astype(np.int64)
        self.rows = int(self.of_session.max(initial=-1)) + 1
        self.per_row: Ints = np.zeros(self.rows, np.int64)
        """int64 [rows]: how many entries each row has."""
        for span in corpus.parts():
            self.per_row += np.bincount(self._entries(span).rows, minlength=self.rows)

    @property
    def total(self) -> int:
        """Entries in all."""
        return int(self.per_row.sum())

    def leave_out(self, rows: Ints, listings: Ints) -> None:
        """Take an entry out of each of these rows, which differ: int64 [r], twice."""
        self._without = np.sort(rows * len(self.corpus.listings) + listings)
        self.per_row[rows] -= 1

    def blocks(self, size: int, random: np.random.Generator) -> Iterator[Entries]:
        """All entries, in random order within parts in random order, `size` at a time. (A user whose sessions lie in
        several parts has a listing's entry once in each of them.)"""
        spans = list(self.corpus.parts())
        for at in random.permutation(len(spans)).tolist():
            part = self._entries(spans[at])
            order = random.permutation(len(part.rows))
            for start in range(0, len(order), size):
                these = order[start : start + size]
                yield Entries(
                    part.rows[these], part.listings[these], part.counts[these], part._known, part._size
                )

    def _entries(self, span: tuple[int, int]) -> Entries:
        part, size = self.corpus.part(*span), len(self.corpus.listings)
        rows = self.of_session[span[0] : span[1]][part.session]
        known, counts = np.unique(rows * size + part.tokens, return_counts=True)
        if len(self._without):
            kept = ~np.isin(known, self._without)
            known, counts = known[kept], counts[kept]
        return Entries(known // size, known % size, counts, known, size)
