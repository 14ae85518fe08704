"""Listings announced since a bundle was made: few, often changed, and compared one by one beside its index."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import numpy.typing as npt

from models.listings import Listing

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

GONE, UNKNOWN = -1, -2
"""Of a place where nothing is announced now, and of a market that nothing was announced in."""


class Announced:
    """What was announced, by a place that each listing keeps: the first announced has place 0, the next 1, and so on.

    One thread may `put` and `drop` while others ask for the `nearest`.
    """

    def __init__(self) -> None:
        self._listings: dict[str, tuple[int, Listing]] = {}
        self._codes: dict[str | None, int] = {}
        """A number for each market, and for none."""
        self._markets = np.full(1_024, GONE, np.int32)
        """By place, the market's number; GONE where nothing is announced now."""

    def __len__(self) -> int:
        return len(self._listings)

    def get(self, listing_id: str) -> Listing | None:
        """What was announced last of the listing; None where nothing is."""
        place_and_listing = self._listings.get(listing_id)
        return None if place_and_listing is None else place_and_listing[1]

    def put(self, listing_id: str, place: int, listing: Listing) -> None:
        """Announce a listing, whose vector stands at its place already, or say something else of it."""
        self._listings[listing_id] = (place, listing)
        code = self._codes.setdefault(listing.market, len(self._codes))
        if place >= len(self._markets):
            grown = np.full(2 * place, GONE, np.int32)
            grown[: len(self._markets)] = self._markets
            self._markets = grown
        self._markets[place] = code

    def drop(self, listing_id: str) -> None:
        """Withdraw a listing that is announced."""
        place, _ = self._listings.pop(listing_id)
        self._markets[place] = GONE

    def nearest(
        self, vectors: Floats, query: Floats, k: int, *, market: str | None, exclude: Set[int]
    ) -> tuple[Rows, Floats]:
        """The `k` places nearest to `query`, [d], in no order, and their similarities; `vectors`, [m, d], are by place.

        Within `market` where one is given, without the places in `exclude`.
        """
        markets = self._markets[: len(vectors)]
        vectors = vectors[: len(markets)]
        found = markets != GONE if market is None else markets == self._codes.get(market, UNKNOWN)
        found[[place for place in exclude if place < len(found)]] = False
        places = np.flatnonzero(found)
        # All at once is faster than gathering a part: a few thousand rows are read in some tens of microseconds.
        similarities = (vectors @ query)[places]
        if k < len(places):
            best = np.argpartition(-similarities, k - 1)[:k]
            places, similarities = places[best], similarities[best]
        return places, similarities
