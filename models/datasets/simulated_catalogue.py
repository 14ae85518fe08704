"""The listings of the simulated marketplace, with their truth: see docs/marketplace.md for every distribution."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.listings import Attribute, Listing

Vector = NDArray[np.float64]
Whole = NDArray[np.int64]

CITIES = (
    ("Lisbon", 38.72, -9.14, 95.0),
    ("Barcelona", 41.39, 2.17, 130.0),
    ("Vienna", 48.21, 16.37, 110.0),
    ("Copenhagen", 55.68, 12.57, 160.0),
    ("Athens", 37.98, 23.73, 80.0),
    ("Edinburgh", 55.95, -3.19, 135.0),
    ("Prague", 50.08, 14.44, 85.0),
    ("Marseille", 43.30, 5.37, 100.0),
    ("Hamburg", 53.55, 9.99, 115.0),
    ("Palermo", 38.12, 13.36, 70.0),
    ("Krakow", 50.06, 19.94, 65.0),
    ("Bilbao", 43.26, -2.93, 90.0),
)
"""Name, latitude, longitude, and the price of a plain night. Each has fewer listings and visits than the one before."""

QUARTERS = (
    "Harbour",
    "Old Town",
    "Parkside",
    "Station",
    "Hills",
    "Arts Quarter",
    "University",
    "Riverside",
)
TYPES = (("apartment", 1.0), ("room", 0.5), ("house", 1.7), ("hotel room", 1.2))
"""... and what they cost beside a plain night."""
AMENITIES = ("kitchen", "pool", "workspace", "garden", "balcony", "parking", "breakfast", "pets allowed")
WORDS = (
    "airy", "art deco", "attic", "bicycles", "bohemian", "bookshelves", "bright", "central", "cosy", "courtyard",
    "cradle", "design", "dim", "family", "fireplace", "gallery", "graffiti", "hammock", "industrial", "lively",
    "marble", "minimal", "new", "nightlife", "panorama", "piano", "quiet", "romantic", "rustic", "sea view",
    "simple", "spacious", "stylish", "sunny", "terrace", "tiled", "timbered", "traditional", "vaulted", "vintage",
)  # fmt: skip

STYLES = 8
LATENT = 8
IMAGE = 16
SHOWN = 25
KEEPS = 0.6
"""How often a listing has its style's type, and its quarter."""
SAID = 7
"""Words in a description."""
COMES, LEAVES = 0.2, 0.2
"""The part of the listings that is not there from the start, and the part that does not stay,"""
CHURN_DAYS = 56
"""over so many days."""
SWING = 0.5
"""How far the logarithm of a popularity swings with the weeks."""
DAY = 86_400_000
NEVER = 1 << 62
FEWEST = 2 * SHOWN
"""Listings of a market."""


class Catalogue:
    """The listings, market by market, and what is true of them. Arrays have a row a listing."""

    def __init__(self, rng: np.random.Generator, start_ms: int, markets: int, listings: int) -> None:
        """`listings` in all, in the first `markets` cities. Raises ValueError where that can't be."""
        if not 1 <= markets <= len(CITIES) or listings < markets * FEWEST:
            raise ValueError(f"1 to {len(CITIES)} markets of at least {FEWEST} listings each")
        self.start_ms = start_ms
        self.share: Vector = 1 / np.sqrt(np.arange(1, markets + 1))
        """float64 [markets]: each market's part of the listings and of the visits."""
        self.share /= self.share.sum()
        self.size: Whole = FEWEST + np.floor(self.share * (listings - markets * FEWEST)).astype(np.int64)
        """int64 [markets]: how many listings each has; and the row of its first."""
        self.size[0] += listings - self.size.sum()
        self.first: Whole = np.cumsum(self.size) - self.size
        self.market: Whole = np.repeat(np.arange(markets), self.size)
        self.styles: Vector = np.linalg.qr(rng.standard_normal((LATENT, STYLES)))[0].T
        """float64 [STYLES, LATENT]: the directions around which tastes and listings lie."""
        self.style: Whole = rng.integers(STYLES, size=listings)
        self.latent = unit(self.styles[self.style] + 0.2 * rng.standard_normal((listings, LATENT)))
        """float64 [listings, LATENT]: each listing's own direction."""
        self.quality: Vector = rng.standard_normal(listings)
        self.popularity: Vector = self.quality + 0.5 * rng.standard_normal(listings)
        """The logarithm of it, on average over the weeks."""
        self._period: Vector = rng.uniform(7, 60, listings)
        self._phase: Vector = rng.uniform(0, 2 * np.pi, listings)
        self._fashion: Vector = rng.uniform(0, 2 * np.pi, STYLES)
        self.since, self.until = self._churn(rng, listings)
        """int64: when each comes, the start for most, and when it goes, NEVER for most; milliseconds."""
        look = rng.standard_normal((LATENT, IMAGE)) / np.sqrt(LATENT)
        self.images = (self.latent @ look + 0.2 * rng.standard_normal((listings, IMAGE))).astype(np.float32)
        """float32 [listings, IMAGE]: what a network for pictures would say of each, its direction turned and blurred."""
        self._words = self._describe(rng)
        self._types: Whole = self._own_or_any(rng, len(TYPES))
        self._quarters: Whole = self._own_or_any(rng, len(QUARTERS))
        likely = rng.random((STYLES, len(AMENITIES)))
        self._amenities = rng.random((listings, len(AMENITIES))) < likely[self.style]
        plain = np.array([city[3] for city in CITIES])[self.market]
        factor = np.array([factor for _, factor in TYPES])[self._types]
        self.price: Vector = np.round(
            plain * factor * np.exp(0.15 * self.quality + 0.25 * rng.standard_normal(listings))
        )
        angle = self._quarters * 2 * np.pi / len(QUARTERS)
        self._place: Vector = (
            np.array([city[1:3] for city in CITIES])[self.market]
            + 0.03 * np.stack([np.sin(angle), np.cos(angle)], 1)
            + 0.006 * rng.standard_normal((listings, 2))
        )

    def _churn(self, rng: np.random.Generator, listings: int) -> tuple[Whole, Whole]:
        late, leaves = rng.random((2, listings)) < np.array([[COMES], [LEAVES]])
        waits, stays = np.floor(rng.random((2, listings)) * CHURN_DAYS * DAY).astype(np.int64)
        since = self.start_ms + np.where(late, waits, 0)
        return since, np.where(leaves, since + stays, NEVER)

    def _own_or_any(self, rng: np.random.Generator, number: int) -> Whole:
        """What goes with the listing's style, more often than not."""
        listings = len(self.style)
        any_: Whole = rng.integers(number, size=listings)
        return np.where(rng.random(listings) < KEEPS, self.style % number, any_)

    def _describe(self, rng: np.random.Generator) -> Whole:
        """int64 [listings, SAID]: which words; each style has its own favourites among them."""
        favour = np.log(rng.dirichlet(np.full(len(WORDS), 0.3), STYLES) + 1e-3)
        # The largest of the weights with Gumbel noise are a draw without replacement.
        draws = favour[self.style] + rng.gumbel(size=(len(self.style), len(WORDS)))
        words: Whole = np.argsort(-draws, axis=1, kind="stable")[:, :SAID]
        return words

    def log_popularity(self, time: int) -> Vector:
        """float64 [listings]: the logarithm of each popularity at a time (ms)."""
        days = (time - self.start_ms) / DAY
        popularity: Vector = self.popularity + SWING * np.sin(2 * np.pi * days / self._period + self._phase)
        return popularity

    def fashion(self, time: int) -> Vector:
        """float64 [STYLES]: the part of new visitors who look for each style at a time (ms); it goes round in 30 days."""
        days = (time - self.start_ms) / DAY
        weight = np.exp(0.5 * np.sin(2 * np.pi * days / 30 + self._fashion))
        part: Vector = weight / weight.sum()
        return part

    @cached_property
    def listings(self) -> list[Listing]:
        """What the marketplace says of its listings, in the order of their rows."""
        within = np.arange(1, len(self.market) + 1) - self.first[self.market]
        return [
            Listing(
                listing_id=f"{CITIES[market][0].lower()}-{number:03d}",
                market=CITIES[market][0],
                type=TYPES[kind][0],
                price=price,
                latitude=round(latitude, 5),
                longitude=round(longitude, 5),
                attributes=self._attributes(row, TYPES[kind][0], CITIES[market][0], QUARTERS[quarter]),
            )
            for row, (market, number, kind, quarter, price, (latitude, longitude)) in enumerate(
                zip(
                    self.market.tolist(),
                    within.tolist(),
                    self._types.tolist(),
                    self._quarters.tolist(),
                    self.price.tolist(),
                    self._place.tolist(),
                    strict=True,
                )
            )
        ]

    def _attributes(self, row: int, kind: str, city: str, quarter: str) -> dict[str, Attribute]:
        words = [WORDS[word] for word in self._words[row].tolist()]
        attributes: dict[str, Attribute] = {
            "name": f"{kind.capitalize()} in {city}, {quarter}",
            "quarter": quarter,
            "amenities": tuple(
                name for name, has in zip(AMENITIES, self._amenities[row], strict=True) if has
            ),
            "text": f"{', '.join(words[:-1]).capitalize()} and {words[-1]}: {kind} in the {quarter} of {city}.",
            "image": " ".join([f"{value:.3f}" for value in self.images[row].tolist()]),
            "since": _date(int(self.since[row])),
        }
        if self.until[row] < NEVER:
            attributes["until"] = _date(int(self.until[row]))
        return attributes


def unit(vectors: Vector) -> Vector:
    """The vectors, along the last axis, at length one."""
    made: Vector = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return made


def _date(time: int) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).isoformat(timespec="milliseconds")
