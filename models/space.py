"""The space of the listings' vectors: a bundle's rows, and behind them those of listings announced since."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Space:
    """Rows by listing id, and `vectors`, float32 [m, d], by row.

    May be read by several threads while one puts: a row that is found in `row` stands in whatever `vectors` gives
    from then on.
    """

    def __init__(self, row: Mapping[str, int], vectors: Floats) -> None:
        self.row = dict(row)
        self.ids = list(row)
        """By row."""
        self._put: dict[str, int] = {}
        self._matrix = vectors
        self._size = len(vectors)

    @property
    def vectors(self) -> Floats:
        """float32 [m, d]: of unit length, or zeros where nothing is known of a listing."""
        return self._matrix[: self._size]

    def put(self, listing_id: str, vector: Floats) -> int:
        """Give a listing a vector, [d], in a row of its own, the same as before where it had one; the row."""
        if (row := self._put.get(listing_id)) is not None:
            self._matrix[row] = vector
            self.row[listing_id] = row
            return row
        if self._size == len(self._matrix):
            grown = np.zeros((self._size + max(1_024, self._size // 8), self._matrix.shape[1]), np.float32)
            grown[: self._size] = self._matrix
            self._matrix = grown
        row = self._size
        self._matrix[row] = vector
        self._size = row + 1
        self.ids.append(listing_id)
        self.row[listing_id] = self._put[listing_id] = row
        return row
