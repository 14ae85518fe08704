"""What events tell of listings where a set has no catalogue: in which market they stood, their prices and attributes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from models.listings import Attribute, Listing


@dataclass(slots=True)
class Seen:
    """What was seen of each listing so far. Grows with listings, not with events."""

    listings: set[str] = field(default_factory=set)
    markets: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often a listing was in a market."""
    prices: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Its newest price, after the time it is from."""
    attributes: dict[str, dict[str, Attribute]] = field(default_factory=dict)

    def price(self, listing_id: str, time: int, price: float) -> None:
        """A listing had this price at `time`: the newest is kept."""
        known = self.prices.get(listing_id)
        if known is None or time >= known[0]:
            self.prices[listing_id] = time, price

    def described(self) -> Iterator[Listing]:
        """The listings by id, each in the market where it was most often. To be taken when all events have been."""
        most: dict[str, tuple[int, str]] = {}
        for (listing, market), times in self.markets.items():
            most[listing] = max(most.get(listing, (0, "")), (times, market))
        for listing in sorted(self.listings):
            yield Listing(
                listing_id=listing,
                market=most[listing][1] if listing in most else None,
                price=self.prices[listing][1] if listing in self.prices else None,
                attributes=self.attributes.get(listing, {}),
            )
