"""A simulated marketplace for short stays, with a known truth: for the demo, for tests, and for whoever has no data yet.

How it is made; all draws come from the seed.

*Listings.* Every market (a city) has its share of the listings. A listing has one of eight styles; a style is a
random direction in a space of LATENT dimensions, and the listing's own latent vector is its style's with some noise,
at length one. The style makes its type, quarter and amenities likely, but none of them certain. Quality is normal;
popularity is quality with noise; the price is log-normal by market, type and quality.

*Visitors.* A visitor's taste is a style's direction with noise, at length one; the budget is log-normal about the
market's prices. A third of the visits are by somebody who came before, whose taste has then drifted a little. In a
visit somebody looks for a place in one market, where about half of the listings are free on their dates. The utility
of a listing is TASTE * cosine(taste, latent) + QUALITY * quality - PRICE * |log(price / budget)| + noise; the noise
is this visitor's own and stays through the visit.

*Searches.* The search service shows the 25 best of those free by popularity and relevance noise, drawn anew for each
search. It knows nothing of tastes: that is what a re-ranking can add.

*What visitors do.* They look at position p with a probability that falls as 1 / (1 + (p - 1) / 12), click on what
they look at with probability sigmoid(sharpness * (utility - APPEAL)), and know better what they want from search to
search (the sharpness rises). So the clicks of the first lists, noisy as they are, tell of the later choice. They come
back to what they liked, save it, and ask the host. In the end about half of them look through the last list and book
the best of it and of what they clicked before; of those the host refuses a few, and some then book the next best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from math import exp

import numpy as np
from numpy.typing import NDArray

from models.events import Booking, Click, Event, Inquiry, Leave, Rejection, Result, Search, Wishlist
from models.listings import Listing

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

STYLES = 8
LATENT = 8
SHOWN = 25
FREE = 0.5
"""The part of a market's listings that is free on a visitor's dates."""
TASTE, QUALITY, PRICE, NOISE = 3.0, 0.6, 0.8, 0.4
APPEAL = 2.3
RELEVANCE_NOISE = 0.8
BOOKS = 0.5
REFUSED = 0.04
PAUSES = 0.02
RETURNS = 0.35
"""The part of the visits that is by somebody who came before."""
PER_HOUR = 150.0
"""Visits that begin, on average over a day."""
SECOND, HOUR = 1_000, 3_600_000

MONDAY = 1_735_516_800_000
"""Where simulated time begins unless told: 30 December 2024, midnight UTC."""

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Visit:
    """One visit, played to its end, and the truth about it. Another order of a list would not have changed it."""

    user_id: str
    market: str
    taste: Vector
    """float64 [LATENT], of length one."""
    budget: float
    booked: str | None
    """The listing that was booked and not refused."""
    events: tuple[Event, ...]
    """In order, with times strictly rising; each search in the search service's own order."""


@dataclass(slots=True)
class _Visitor:
    user_id: str
    taste: Vector
    thrift: float
    market: int
    busy_until: int


class Marketplace:
    """The listings of a simulated marketplace, and its visits. The same seed gives the same of both, at every call."""

    def __init__(self, seed: int, *, markets: int = len(CITIES), listings: int = 1_500) -> None:
        """`markets` of the cities above, with `listings` in all."""
        if not 1 <= markets <= len(CITIES) or listings < markets * 2 * SHOWN:
            raise ValueError(f"1 to {len(CITIES)} markets of at least {2 * SHOWN} listings each")
        self.seed = seed
        rng = np.random.default_rng([seed, 0])
        share = 1 / np.sqrt(np.arange(1, markets + 1))
        share /= share.sum()
        self._up_to: Vector = np.cumsum(share)
        sizes = 2 * SHOWN + np.floor(share * (listings - markets * 2 * SHOWN)).astype(int)
        sizes[0] += listings - sizes.sum()
        self.styles = _unit(rng.standard_normal((STYLES, LATENT)))
        """float64 [STYLES, LATENT]: the directions around which tastes and listings lie."""
        self.style = rng.integers(STYLES, size=listings)
        """int64 [listings]: each listing's style."""
        self.latent = _unit(self.styles[self.style] + 0.2 * rng.standard_normal((listings, LATENT)))
        """float64 [listings, LATENT]: each listing's own direction."""
        self._market = np.repeat(np.arange(markets), sizes)
        self._quality = rng.standard_normal(listings)
        self._popularity = self._quality + 0.5 * rng.standard_normal(listings)
        self.listings = self._describe(rng)
        """The catalogue, market by market."""
        self._log_price = np.log([listing.price or 1.0 for listing in self.listings])
        self._rows = [np.flatnonzero(self._market == market) for market in range(markets)]
        self._ids = np.array([listing.listing_id for listing in self.listings], dtype=object)
        # Visits share the results: the same object for the same listing at the same position.
        self._shown = [
            [
                Result(listing_id=each.listing_id, position=position, price=each.price)
                for each in self.listings
            ]
            for position in range(1, SHOWN + 1)
        ]

    def _describe(self, rng: np.random.Generator) -> list[Listing]:
        number = len(self.style)
        # Each style has a type, a quarter and amenities of its own; a listing keeps to them more often than not.
        types = np.where(
            rng.random(number) < 0.6, self.style % len(TYPES), rng.integers(len(TYPES), size=number)
        )
        quarters = np.where(
            rng.random(number) < 0.6, self.style % len(QUARTERS), rng.integers(len(QUARTERS), size=number)
        )
        likely = rng.random((STYLES, len(AMENITIES)))
        amenities = rng.random((number, len(AMENITIES))) < likely[self.style]
        middle = np.array([CITIES[market][1:3] for market in self._market])
        angle = quarters * 2 * np.pi / len(QUARTERS)
        place = (
            middle
            + 0.03 * np.stack([np.sin(angle), np.cos(angle)], 1)
            + 0.006 * rng.standard_normal((number, 2))
        )
        plain = np.array([CITIES[market][3] for market in self._market])
        factor = np.array([factor for _, factor in TYPES])[types]
        price = plain * factor * np.exp(0.15 * self._quality + 0.25 * rng.standard_normal(number))
        within = np.concatenate([np.arange(1, size + 1) for size in np.bincount(self._market)])
        listings = []
        for row in range(number):
            city, kind, quarter = CITIES[self._market[row]][0], TYPES[types[row]][0], QUARTERS[quarters[row]]
            listings.append(
                Listing(
                    listing_id=f"{city.lower()}-{within[row]:03d}",
                    market=city,
                    type=kind,
                    price=round(float(price[row])),
                    latitude=round(float(place[row, 0]), 5),
                    longitude=round(float(place[row, 1]), 5),
                    attributes={
                        "name": f"{kind.capitalize()} in {city}, {quarter}",
                        "quarter": quarter,
                        "amenities": tuple(
                            name for name, has in zip(AMENITIES, amenities[row], strict=True) if has
                        ),
                    },
                )
            )
        return listings

    def events(self, visits: int, start_ms: int = MONDAY, *, stream: int = 0) -> Iterator[Event]:
        """The events of so many visits in time order, as they overlap; those of one time by event id."""
        waiting: list[tuple[int, str, Event]] = []
        for visit in self.visits(visits, start_ms, stream=stream):
            begins = visit.events[0].timestamp
            while waiting and waiting[0][0] < begins:
                yield heappop(waiting)[2]
            for event in visit.events:
                heappush(waiting, (event.timestamp, event.event_id, event))
        while waiting:
            yield heappop(waiting)[2]

    def visits(self, number: int, start_ms: int = MONDAY, *, stream: int = 0) -> Iterator[Visit]:
        """So many visits, in the order in which they begin. Another `stream` has other visitors in the same marketplace."""
        rng = np.random.default_rng([self.seed, 1, stream])
        known: list[_Visitor] = []
        time = float(start_ms)
        for visit in range(number):
            # More come in the evening than at night.
            busy = 1 + 0.7 * np.sin(2 * np.pi * (time / HOUR - 12) / 24)
            time += rng.exponential(HOUR / PER_HOUR / busy)
            visitor = self._visitor(rng, known, int(time), stream)
            played = self._visit(rng, visitor, f"{stream}-{visit:06d}", int(time))
            visitor.busy_until = played.events[-1].timestamp + 2 * HOUR
            yield played

    def _visitor(self, rng: np.random.Generator, known: list[_Visitor], time: int, stream: int) -> _Visitor:
        """Somebody new, or somebody who came before and is not here at this time."""
        again, which, same_market = rng.random(3)
        if known and again < RETURNS:
            visitor = known[int(which * len(known))]
            if visitor.busy_until < time:
                visitor.taste = _unit(visitor.taste + 0.05 * rng.standard_normal(LATENT))
                if same_market > 0.6:
                    visitor.market = self._anywhere(rng)
                return visitor
        taste = _unit(self.styles[rng.integers(STYLES)] + 0.15 * rng.standard_normal(LATENT))
        market = self._anywhere(rng)
        visitor = _Visitor(f"visitor-{stream}-{len(known):06d}", taste, rng.normal(0, 0.35), market, 0)
        known.append(visitor)
        return visitor

    def _anywhere(self, rng: np.random.Generator) -> int:
        """A market, by its share."""
        return min(int(np.searchsorted(self._up_to, rng.random())), len(self._rows) - 1)

    def _visit(self, rng: np.random.Generator, visitor: _Visitor, name: str, time: int) -> Visit:
        market = CITIES[visitor.market][0]
        rows = self._rows[visitor.market]
        rows = rows[rng.random(len(rows)) < FREE]
        log_budget = np.log(CITIES[visitor.market][3]) + visitor.thrift
        utility = (
            TASTE * (self.latent[rows] @ visitor.taste)
            + QUALITY * self._quality[rows]
            - PRICE * np.abs(self._log_price[rows] - log_budget)
            + NOISE * rng.standard_normal(len(rows))
        )
        searches = 1 + min(int(rng.geometric(0.4)), 8)
        own = self._popularity[rows] + RELEVANCE_NOISE * rng.standard_normal((searches, len(rows)))
        lists = np.argsort(-own, axis=1, kind="stable")[:, :SHOWN]
        looks = rng.random(lists.shape) < 1 / (1 + np.arange(lists.shape[1]) / 12)
        sharpness = np.minimum(2 + np.arange(searches), 5)[:, None]
        clicks = looks & (rng.random(lists.shape) < _sigmoid(sharpness * (utility[lists] - APPEAL)))
        script = _Script(rng, visitor.user_id, market, name, time, self._ids[rows].tolist())
        liked: dict[int, float] = {}
        for search in range(searches):
            shown = rows[lists[search]].tolist()
            script.search(tuple([at[row] for at, row in zip(self._shown, shown, strict=True)]))
            for place in np.flatnonzero(clicks[search])[:6].tolist():
                at = int(lists[search, place])
                script.click(at, float(utility[at]), in_list=True)
                liked[at] = float(utility[at])
            best = max(liked, key=liked.__getitem__, default=None)
            if best is not None and search and script.chance() < 0.25:
                script.click(best, liked[best], in_list=best in lists[search])
        booked = None
        if script.chance() < BOOKS:
            seen = [at for at in lists[-1].tolist() if script.chance() < 0.9]
            choice = sorted({*liked, *seen}, key=lambda at: -utility[at])
            booked = script.book(choice, lists[-1].tolist(), utility)
        listing = None if booked is None else self.listings[rows[booked]].listing_id
        return Visit(
            visitor.user_id, market, visitor.taste, float(np.exp(log_budget)), listing, tuple(script.events)
        )


class _Script:
    """Writes down what one visitor does, and lets time pass between. Listings are named by their place in `ids`."""

    def __init__(
        self, rng: np.random.Generator, user_id: str, market: str, name: str, time: int, ids: list[str]
    ) -> None:
        self.events: list[Event] = []
        self.user_id, self.market, self.name, self.time, self.ids = user_id, market, name, time, ids
        self.search_id: str | None = None
        self._uniform = _draws(rng.random)
        self._normal = _draws(rng.standard_normal)

    def chance(self) -> float:
        """Uniform in [0, 1)."""
        return next(self._uniform)

    def wait(self, seconds: float) -> None:
        """Some time passes: log-normal about so many seconds."""
        self.time += max(400, int(seconds * SECOND * exp(0.7 * next(self._normal))))

    def search(self, results: tuple[Result, ...]) -> None:
        """See a list. A few go away before it and come back after half an hour to four."""
        if self.events:
            self.wait(20)
            if self.chance() < PAUSES:
                self.time += int((0.5 + 3.5 * self.chance()) * HOUR)
        self.search_id = self._name()
        self.events.append(
            Search(
                event_id=self.search_id,
                search_id=self.search_id,
                user_id=self.user_id,
                timestamp=self.time,
                query=self.market,
                market=self.market,
                results=results,
            )
        )

    def click(self, at: int, utility: float, *, in_list: bool) -> None:
        """Open a listing, stay the longer the more it appeals, and perhaps save it or ask its host."""
        self.wait(6)
        opened, name = self.time, self._name()
        self._act(Click, at, in_list)
        self.wait(20 * exp(0.5 * (utility - APPEAL)))
        if utility > APPEAL and self.chance() < 0.3:
            self._act(Wishlist, at, in_list)
            self.wait(3)
        if utility > APPEAL and self.chance() < 0.06:
            self._act(Inquiry, at, in_list)
            self.wait(3)
        if self.chance() < 0.3:
            self.events.append(
                Leave(
                    event_id=self._name(),
                    user_id=self.user_id,
                    timestamp=self.time,
                    of=name,
                    seconds=(self.time - opened) / 1000,
                )
            )

    def book(self, choice: list[int], shown: list[int], utility: Vector) -> int | None:
        """Book the first of the choice or, refused, perhaps the second; what was booked in the end."""
        for at in choice[:2]:
            self.click(at, float(utility[at]), in_list=at in shown)
            self.wait(45)
            self._act(Booking, at, at in shown)
            if self.chance() >= REFUSED:
                return at
            self.wait(240)
            self._act(Rejection, at, at in shown)
            if self.chance() < 0.5:
                return None
        return None

    def _name(self) -> str:
        return f"{self.name}-{len(self.events):03d}"

    def _act(
        self,
        kind: type[Click] | type[Wishlist] | type[Inquiry] | type[Booking] | type[Rejection],
        at: int,
        in_list: bool,
    ) -> None:
        self.events.append(
            kind(
                event_id=self._name(),
                user_id=self.user_id,
                timestamp=self.time,
                listing_id=self.ids[at],
                search_id=self.search_id if in_list else None,
                market=self.market,
            )
        )


def _draws(distribution: Callable[[int], Vector]) -> Iterator[float]:
    while True:
        yield from distribution(64).tolist()


def _unit(vectors: Vector) -> Vector:
    unit: Vector = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def _sigmoid(x: Vector) -> Vector:
    probability: Vector = 1 / (1 + np.exp(-x))
    return probability
