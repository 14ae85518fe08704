"""A vector for a listing nobody has clicked yet: the mean of its nearest neighbours' that are like it.

Airbnb (Grbovic and Cheng, KDD 2018, section 3.1): the three listings geographically nearest, within ten miles, of the
same type and price range and with a vector, whose mean is the new listing's; here of its own market too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.listings import Listing, Listings

NEIGHBOURS = 3
MILES = 10.0
EARTH_MILES = 3_958.8

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class _Market:
    """The listings of a market that have a vector and a place."""

    def __init__(self, listings: Listings, rows: Rows) -> None:
        self.listings = listings
        self.rows = rows
        self.places = np.radians(np.array([listings.place(row) for row in rows.tolist()]))
        self.alike: dict[tuple[str | None, int], list[int]] = {}
        """Indices into `rows`, by type and price range."""
        for at, row in enumerate(rows.tolist()):
            key = (listings.type(row), listings.ranges[row])
            self.alike.setdefault(key, []).append(at)

    def nearest(self, listing: Listing) -> Rows:
        """The rows of the neighbours."""
        key = (listing.type, self.listings.range_of(listing.market, listing.price))
        alike = np.array(self.alike.get(key, ()), np.int64)
        if not len(alike) or listing.latitude is None or listing.longitude is None:
            return np.empty(0, np.int64)
        place = np.radians((listing.latitude, listing.longitude))
        distances = _miles(self.places[alike], place)
        order = np.lexsort((self.rows[alike], distances))[:NEIGHBOURS]
        return self.rows[alike[order[distances[order] <= MILES]]]


class ColdStart:
    """The neighbours that a bundle's listings and their vectors, float32 [n, d], offer."""

    def __init__(self, listings: Listings, vectors: Floats) -> None:
        self._listings = listings
        self._vectors = vectors
        self._markets: dict[str | None, _Market] = {}
        has = np.any(vectors, axis=1)
        self._usable: dict[str | None, list[int]] = {}
        for row in np.flatnonzero(has).tolist():
            if listings.place(row) is not None:
                self._usable.setdefault(listings.market(row), []).append(row)

    def vector(self, listing: Listing) -> Floats | None:
        """The listing's vector, float32 [d], of unit length; None where it has no neighbours, or no place is known of it.

        Only the bundle's own listings are neighbours, so the order in which listings are announced changes nothing.
        """
        market = self._market(listing.market)
        rows = market.nearest(listing) if market is not None else ()
        if not len(rows):
            return None
        mean = self._vectors[rows].astype(np.float64).mean(axis=0)
        norm = np.linalg.norm(mean)
        return (mean / norm).astype(np.float32) if norm > 1e-9 else None

    def _market(self, name: str | None) -> _Market | None:
        if name not in self._markets and name in self._usable:
            self._markets[name] = _Market(self._listings, np.array(self._usable[name], np.int64))
        return self._markets.get(name)


def _miles(places: npt.NDArray[np.float64], place: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Great-circle distances (the haversine formula) from `places`, [n, 2], latitude and longitude in radians, to one."""
    half = (places - place) / 2
    inner = np.sin(half[:, 0]) ** 2 + np.cos(places[:, 0]) * np.cos(place[0]) * np.sin(half[:, 1]) ** 2
    distances: npt.NDArray[np.float64] = 2 * EARTH_MILES * np.arcsin(np.sqrt(np.clip(inner, 0, 1)))
    return distances
