"""Listings: what is known of each, and rows <-> ids. A row is the listing's place in a bundle's matrix of vectors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from models.events import Id, Money, Version

Attribute = str | float | bool | tuple[str, ...]


class Listing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record of the `listings` topic, and a row of a listings file."""

    listing_id: Id
    market: Id | None = None
    type: Id | None = None
    price: Money | None = None
    latitude: Annotated[float, msgspec.Meta(ge=-90, le=90)] | None = None
    longitude: Annotated[float, msgspec.Meta(ge=-180, le=180)] | None = None
    attributes: dict[str, Attribute] = {}
    version: Version = 1


class Columns(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Listings by column, as they stand in a bundle. A column that says nothing is absent."""

    listing_id: list[str]
    market: list[str | None] | None = None
    type: list[str | None] | None = None
    price: list[float | None] | None = None
    latitude: list[float | None] | None = None
    longitude: list[float | None] | None = None
    attributes: list[dict[str, Attribute]] | None = None


_decoder = msgspec.json.Decoder(Columns)
_listing_decoder = msgspec.json.Decoder(Listing)
NOTHING = -1
"""The code of a listing without a market, a price range or a type."""
RANGES = 5
"""A market's prices fall into so many ranges, each of as many listings."""


class Listings:
    """The listings of a bundle, in the order of their rows. Immutable."""

    def __init__(self, columns: Columns) -> None:
        """Raises ValueError where columns differ in length or an id stands twice."""
        self.columns = columns
        self.ids = columns.listing_id
        self.row = {listing: row for row, listing in enumerate(self.ids)}
        if len(self.row) != len(self.ids):
            raise ValueError("a listing id stands twice")
        lengths = {len(column) for column in msgspec.structs.astuple(columns) if column is not None}
        if lengths != {len(self.ids)}:
            raise ValueError("the columns differ in length")
        names = columns.market or []
        self.markets = sorted({name for name in names if name is not None})
        codes: dict[str | None, int] = {name: code for code, name in enumerate(self.markets)}
        codes[None] = NOTHING
        self.market_codes: npt.NDArray[np.int32] = np.fromiter(
            (codes[name] for name in names) if names else [NOTHING] * len(self.ids), np.int32, len(self.ids)
        )
        """int32 [n]: each listing's place in `markets`, or NOTHING."""

    @cached_property
    def _edges(self) -> dict[str | None, npt.NDArray[np.float64]]:
        """Where each market's price ranges part."""
        prices: dict[str | None, list[float]] = {}
        for row, price in enumerate(self.columns.price or ()):
            if price is not None:
                prices.setdefault(self.market(row), []).append(price)
        cuts = np.arange(1, RANGES) / RANGES
        return {market: np.quantile(known, cuts) for market, known in prices.items()}

    @cached_property
    def ranges(self) -> list[int]:
        """The price range of each listing in its market, 0 (the cheapest) to RANGES - 1; NOTHING without a price."""
        ranges = np.full(len(self), NOTHING)
        if self.columns.price is not None:
            prices = np.array([math.nan if price is None else price for price in self.columns.price])
            for market, edges in self._edges.items():
                code = self.markets.index(market) if market is not None else NOTHING
                rows = np.flatnonzero((self.market_codes == code) & ~np.isnan(prices))
                ranges[rows] = np.searchsorted(edges, prices[rows], side="right")
        return ranges.tolist()

    def range_of(self, market: str | None, price: float | None) -> int:
        """The range that a price has in a market; NOTHING without a price, or where the market has none."""
        edges = self._edges.get(market)
        return NOTHING if price is None or edges is None else int(np.searchsorted(edges, price, side="right"))

    def __len__(self) -> int:
        return len(self.ids)

    def market(self, row: int) -> str | None:
        return self.columns.market[row] if self.columns.market else None

    def type(self, row: int) -> str | None:
        return self.columns.type[row] if self.columns.type else None

    def price(self, row: int) -> float | None:
        return self.columns.price[row] if self.columns.price else None

    def place(self, row: int) -> tuple[float, float] | None:
        """Latitude and longitude in degrees; None unless both are known."""
        columns = self.columns
        if columns.latitude is None or columns.longitude is None:
            return None
        latitude, longitude = columns.latitude[row], columns.longitude[row]
        return None if latitude is None or longitude is None else (latitude, longitude)

    def attributes(self, row: int) -> dict[str, Attribute]:
        return self.columns.attributes[row] if self.columns.attributes else {}

    def get(self, row: int) -> Listing:
        """All that is known of the listing in `row`."""
        place = self.place(row) or (None, None)
        return Listing(
            listing_id=self.ids[row],
            market=self.market(row),
            type=self.type(row),
            price=self.price(row),
            latitude=place[0],
            longitude=place[1],
            attributes=self.attributes(row),
        )

    def encode(self) -> bytes:
        """The columns as JSON."""
        return msgspec.json.encode(self.columns)


def decode_record(key: bytes | None, value: bytes | None) -> tuple[str, Listing | None]:
    """What a record of the topic `listings` announces: an id, and the listing or None where it is withdrawn.

    Raises ValueError where it can't be read, or its key is not its id.
    """
    listing_id = (key or b"").decode()
    try:
        listing = _listing_decoder.decode(value) if value is not None else None
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if listing is not None and listing.listing_id != listing_id:
        raise ValueError("the record's key is not its `listing_id`")
    return listing_id, listing


def decode(content: bytes) -> Listings:
    """Listings from their JSON. Raises msgspec.MsgspecError or ValueError where it is none."""
    return Listings(_decoder.decode(content))


def collect(listings: Iterable[Listing]) -> Listings:
    """Listings in the order given. Raises ValueError where an id stands twice."""
    rows = list(listings)

    def column(name: str) -> list[object] | None:
        values = [getattr(listing, name) for listing in rows]
        return values if any(value is not None and value != {} for value in values) else None

    names = [name for name in Columns.__struct_fields__ if name != "listing_id"]
    columns = {name: column(name) for name in names}
    return Listings(Columns(listing_id=[listing.listing_id for listing in rows], **columns))  # type: ignore[arg-type]
