"""The space of the listings: by row their vectors and what features need, the bundle's rows and behind them those of
listings announced since."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from models import _kernel
from models.listings import NOTHING

LINE = 64

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]


class Space:
    """Rows by listing id, and by row `vectors`, `log_prices`, `types` and `markets`.

    May be read by several threads while one puts: a row that is found in `row` stands in whatever the others give
    from then on.
    """

    def __init__(
        self,
        row: Mapping[str, int],
        vectors: Floats,
        log_prices: Floats | None = None,
        types: Codes | None = None,
        markets: list[str | None] | None = None,
    ) -> None:
        size = len(vectors)
        self.row = dict(row)
        self.ids = list(row)
        """By row."""
        self.markets: list[str | None] = list(markets) if markets is not None else [None] * size
        """By row."""
        self._put: dict[str, int] = {}
        self._vectors = _aligned(vectors)
        self._log_prices = log_prices if log_prices is not None else np.full(size, np.nan, np.float32)
        self._types = types if types is not None else np.full(size, NOTHING, np.int32)
        self._size = size
        self._directory = _kernel.Directory(self.ids)
        self.table = self._tabulated()
        """All of it, as the kernel has it."""

    @property
    def vectors(self) -> Floats:
        """float32 [m, d]: of unit length, or zeros where nothing is known of a listing."""
        return self._vectors[: self._size]

    @property
    def log_prices(self) -> Floats:
        """float32 [m]: log2 of the price, NaN where it is not known."""
        return self._log_prices[: self._size]

    @property
    def types(self) -> Codes:
        """int32 [m]: the listing type, as `models.types` numbers them, or NOTHING."""
        return self._types[: self._size]

    def put(
        self,
        listing_id: str,
        vector: Floats,
        *,
        price: float | None = None,
        type: int = NOTHING,
        market: str | None = None,
    ) -> int:
        """Give a listing a vector, [d], in a row of its own, the same as before where it had one; the row."""
        row = self._put.get(listing_id, self._size)
        if row == len(self._vectors):
            self._grow()
        self._vectors[row] = vector
        self._log_prices[row] = log_price(price)
        self._types[row] = type
        if row == self._size:
            self.ids.append(listing_id)
            self.markets.append(market)
            self._size = row + 1
        self.markets[row] = market
        self._put[listing_id] = row
        self.table = self._tabulated()
        self._name(listing_id, row)
        return row

    def drop(self, listing_id: str, own: int | None) -> None:
        """Forget what was put for a listing: it has the row `own` again, or none."""
        self._name(listing_id, own)

    def _name(self, listing_id: str, row: int | None) -> None:
        self._directory.set(listing_id, -1 if row is None else row)
        if row is None:
            self.row.pop(listing_id, None)
        else:
            self.row[listing_id] = row

    def _tabulated(self) -> _kernel.Table:
        return _kernel.Table(self._directory, self.vectors, self.log_prices, self.types, self.markets)

    def _grow(self) -> None:
        size = self._size
        more = max(1_024, size // 8)
        self._vectors = _aligned(np.pad(self._vectors, ((0, more), (0, 0))))
        self._log_prices = np.pad(self._log_prices, (0, more), constant_values=np.nan)
        self._types = np.pad(self._types, (0, more), constant_values=NOTHING)


def _aligned(vectors: Floats) -> Floats:
    """The vectors where lines of a processor's cache begin, so that no vector has its share of one line more."""
    room = np.empty(vectors.size + LINE // 4, np.float32)
    start = -room.ctypes.data % LINE // 4
    aligned = room[start : start + vectors.size].reshape(vectors.shape)
    aligned[:] = vectors
    return aligned


def log_price(price: float | None) -> float:
    """log2 of a price; NaN where there is none, or it is nothing."""
    return math.log2(price) if price else math.nan
