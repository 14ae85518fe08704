"""A simulated marketplace for short stays, with a known truth: for the demo, for tests, and for whoever has no data yet.

A small generative model; docs/marketplace.md has every distribution, its parameters, and where a figure comes from.
All draws come from the seed.

*Listings* (models/datasets/simulated_catalogue.py). Every market (a city) has its share of the listings. A listing has
one of eight styles; a style is a random direction, at right angles to the others, in a space of LATENT
dimensions, and the listing's own latent vector is its style's with some noise, at length one. The style makes its type, quarter, amenities, the words of its text and
its image likely, but none of them certain. Quality is normal; popularity is quality with noise, and swings over the
weeks; the price is log-normal by market, type and quality. Some listings come later, and some go.

*Visitors.* A visitor's taste is a style's direction with noise, at length one; which styles are looked for changes over
the weeks. The budget is log-normal about the market's prices. A fifth of the visits are by somebody who came before,
whose taste has then drifted a little. In a visit somebody looks for a place in one market, where about half of the
listings are free on their dates. The utility of a listing is

    TASTE * cosine(taste, latent) + QUALITY * quality - PRICE * |log(price / budget)| + NOISE * normal

where the noise is this visitor's own and stays through the visit.

*Searches* (this and what follows: models/datasets/simulated_visits.py). The search service finds up to SHORTLIST of
those free, the popular ones sooner, and shows the 25 best by popularity and relevance noise, drawn anew for each
search. It knows nothing of tastes: that is what a re-ranking can add.

*What visitors do.* They look at position p with the probability p ** -0.65, click on what they look at with probability
sigmoid(sharpness * (utility - APPEAL)), and know better what they want from search to search (the sharpness rises). So
the clicks of the first lists, noisy as they are, tell of the later choice. They come back to what they liked, save it,
and ask the host. In the end about half of them look through the last list and book the best of it and of what they
clicked before; of those the host refuses a few, and some then book the next best. Times between events are log-normal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from models.datasets import simulated_visits as visits_
from models.datasets.simulated_catalogue import CITIES, NEVER, SHOWN, Catalogue, Vector, Whole
from models.datasets.simulated_visitors import PER_HOUR, Crowd, Visitors, clock
from models.datasets.simulated_visits import NOBODY, Played
from models.events import Booking, Click, Event, Inquiry, Leave, Rejection, Result, Search, Wishlist
from models.listings import Listing

MONDAY = 1_735_516_800_000
"""Where simulated time begins unless told: 30 December 2024, midnight UTC."""
LATEST = 252_000_000_000_000
"""It begins by then, in 9955, so that no time is beyond what an event may have."""

BLOCK = 256
"""Visits that are drawn at once."""

Act = type[Click] | type[Wishlist] | type[Inquiry] | type[Booking] | type[Rejection]
ACTS: tuple[tuple[int, Act], ...] = (
    (visits_.CLICK, Click),
    (visits_.WISHLIST, Wishlist),
    (visits_.INQUIRY, Inquiry),
    (visits_.BOOKING, Booking),
    (visits_.REJECTION, Rejection),
)


@dataclass(frozen=True, slots=True, eq=False)
class Visit:
    """One visit, played to its end, and the truth about it. Another order of a list would not have changed it."""

    user_id: str
    market: str
    style: int
    """What the visitor's taste began from, a row of the marketplace's `styles`."""
    taste: Vector
    """float64 [LATENT], of length one."""
    budget: float
    rows: Whole
    """int64 [n]: the listings that were free and found, as rows of the marketplace's `listings`,"""
    utilities: Vector
    """float64 [n]: and what each is worth to the visitor."""
    best: str | None
    """The listing of the greatest utility; None where none was free."""
    booked: str | None
    """The listing that was booked and not refused."""
    events: tuple[Event, ...]
    """In order, with times strictly rising; each search in the search service's own order."""


@dataclass(slots=True)
class _Block:
    """Visits that were drawn at once, and their events visit by visit."""

    first: int
    """The first visit's number."""
    who: Visitors
    played: Played
    users: list[str]
    events: list[Event]


class Marketplace:
    """The listings of a simulated marketplace, and its visits. The same seed gives the same of both, at every call."""

    def __init__(
        self, seed: int, *, markets: int = len(CITIES), listings: int = 1_500, start_ms: int = MONDAY
    ) -> None:
        """`markets` cities, with `listings` in all, from `start_ms` on. Raises ValueError where that can't be."""
        if not 0 <= start_ms <= LATEST:
            raise ValueError("it begins between 1970 and 9955")
        self.seed, self.start_ms = seed, start_ms
        self.catalogue = Catalogue(np.random.default_rng([seed, 0]), start_ms, markets, listings)
        self.listings = self.catalogue.listings
        """All that are there at some time, market by market."""
        self.styles, self.style, self.latent = (
            self.catalogue.styles,
            self.catalogue.style,
            self.catalogue.latent,
        )
        self._ids = [listing.listing_id for listing in self.listings]
        # Visits share the results: the same object for the same listing at the same position.
        self._results: list[tuple[Result, ...] | None] = [None] * listings

    def announcements(self, until: int) -> Iterator[tuple[int, str, Listing | None]]:
        """What stands on the topic `listings` up to a time (ms): when, which, and the listing or None where it goes."""
        said = [(time, row, True) for row, time in enumerate(self.catalogue.since.tolist())]
        said += [(time, row, False) for row, time in enumerate(self.catalogue.until.tolist()) if time < NEVER]
        for time, row, comes in sorted(said):
            if time <= until:
                yield time, self._ids[row], self.listings[row] if comes else None

    def events(self, visits: int, *, per_hour: float = PER_HOUR, stream: int = 0) -> Iterator[Event]:
        """The events of so many visits in time order, as they overlap; those of one time by event id.

        Holds what is going on at one time, whatever the number of visits.
        """
        waiting: list[Event] = []
        keys = np.empty((3, 0), np.int64)
        """Number within the visit, visit and time of each that waits."""
        for block in self._blocks(visits, per_hour, stream):
            played = block.played
            waiting += block.events
            keys = np.hstack([keys, [played.number, block.first + played.visit, played.time]])
            order = np.lexsort(keys)
            # Nothing that comes later begins before this block's last visit.
            last = played.time[np.flatnonzero(played.number == 0)[-1]]
            done, rest = np.split(order, [np.searchsorted(keys[2, order], last)])
            yield from [waiting[at] for at in done.tolist()]
            waiting, keys = [waiting[at] for at in rest.tolist()], keys[:, rest]
        yield from waiting

    def visits(self, number: int, *, per_hour: float = PER_HOUR, stream: int = 0) -> Iterator[Visit]:
        """So many visits, in the order in which they begin. Another `stream` has other visitors in the same marketplace."""
        for block in self._blocks(number, per_hour, stream):
            who, played = block.who, block.played
            ends = np.cumsum(np.bincount(played.visit)).tolist()
            best = played.utilities.argmax(1)
            for visit, user in enumerate(block.users):
                rows, booked = played.rows[visit], played.booked[visit]
                free = rows != NOBODY
                yield Visit(
                    user_id=user,
                    market=CITIES[who.market[visit]][0],
                    style=int(who.style[visit]),
                    taste=who.taste[visit],
                    budget=float(np.exp(who.log_budget[visit])),
                    rows=rows[free],
                    utilities=played.utilities[visit][free],
                    best=self._ids[rows[best[visit]]] if free.any() else None,
                    booked=None if booked == NOBODY else self._ids[rows[booked]],
                    events=tuple(block.events[ends[visit - 1] if visit else 0 : ends[visit]]),
                )

    def _blocks(self, visits: int, per_hour: float, stream: int) -> Iterator[_Block]:
        crowd, hours = Crowd(self.catalogue), 0.0
        for first in range(0, visits, BLOCK):
            rng = np.random.default_rng([self.seed, 1, stream, first // BLOCK])
            begins = hours + np.cumsum(rng.exponential(1 / per_hour, BLOCK))
            hours = float(begins[-1])
            who = crowd.come(rng, self.start_ms + clock(begins, self.start_ms))
            played = visits_.play(rng, self.catalogue, who)
            crowd.leave(who, played.time[np.flatnonzero(np.diff(played.visit, append=BLOCK))])
            played.cut(min(BLOCK, visits - first))
            users = [f"visitor-{stream}-{user:07d}" for user in who.user[: len(played.rows)].tolist()]
            yield _Block(first, who, played, users, self._events(f"{stream}-", first, who, played, users))

    def _events(
        self, prefix: str, first: int, who: Visitors, played: Played, users: list[str]
    ) -> list[Event]:
        """The table as events."""
        kind, time, of = played.kind, played.time.tolist(), played.of.tolist()
        user = [users[visit] for visit in played.visit.tolist()]
        market = [CITIES[market][0] for market in who.market[played.visit].tolist()]
        listing = [self._ids[row] for row in played.rows[played.visit, played.place].tolist()]
        ids = [
            f"{prefix}{visit:07d}-{number:03d}"
            for visit, number in zip((first + played.visit).tolist(), played.number.tolist(), strict=True)
        ]
        search = [None if at == NOBODY else ids[at] for at in played.search.tolist()]
        made: dict[int, Event] = {}
        for at, shown in zip(
            np.flatnonzero(kind == visits_.SEARCH).tolist(), played.shown.tolist(), strict=True
        ):
            made[at] = Search(
                event_id=ids[at],
                search_id=ids[at],
                user_id=user[at],
                timestamp=time[at],
                query=market[at],
                market=market[at],
                results=self._shown(shown),
            )
        for at in np.flatnonzero(kind == visits_.LEAVE).tolist():
            made[at] = Leave(
                event_id=ids[at],
                user_id=user[at],
                timestamp=time[at],
                of=ids[of[at]],
                seconds=(time[at] - time[of[at]]) / 1000,
            )
        for code, act in ACTS:
            for at in np.flatnonzero(kind == code).tolist():
                made[at] = act(
                    event_id=ids[at],
                    user_id=user[at],
                    timestamp=time[at],
                    listing_id=listing[at],
                    search_id=search[at],
                    market=market[at],
                )
        return [made[at] for at in range(len(ids))]

    def _shown(self, rows: list[int]) -> tuple[Result, ...]:
        results = self._results
        return tuple(
            [
                (results[row] or self._at_each_position(row))[position]
                for position, row in enumerate(rows)
                if row != NOBODY
            ]
        )

    def _at_each_position(self, row: int) -> tuple[Result, ...]:
        listing = self.listings[row]
        made = tuple(
            [
                Result(listing_id=listing.listing_id, position=position, price=listing.price)
                for position in range(1, SHOWN + 1)
            ]
        )
        self._results[row] = made
        return made
