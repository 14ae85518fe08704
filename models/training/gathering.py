"""A recording -> a corpus of sessions, and what it says of listings and searches."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from os import PathLike

import msgspec
import numpy as np

from models import listings as listings_
from models.errors import UserError
from models.evaluation.rerank import records
from models.events import Event, Forget, Leave, Search, Tick
from models.history import dwell
from models.listings import Listing, Listings
from models.recording import SESSION
from models.sessions import DAY, WINDOWS, Action, Kept, Left, Shown, order
from models.sessions import KINDS as KIND
from models.training.corpus import KINDS, Collector, Corpus

SWEEP = 10_000
"""Events between two looks for sessions that are over."""
GIVEN = DAY
"""A session that the source names is over after so long without an event."""
_CODES = {kind: code for code, kind in enumerate(KINDS)}


@dataclass(slots=True)
class Gathered:
    """What a recording says."""

    corpus: Corpus
    """All that was done to listings; of users who asked to be forgotten, what they did after that."""
    searches: array[int]
    """The searches' timestamps,"""
    forgotten: dict[str, int]
    """and the newest `forget` of each user who asked for one."""
    events: int
    newest: int
    fingerprint: str


def gather(
    path: str | PathLike[str],
    known: Iterable[Listing] = (),
    until: int | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Gathered:
    """What the recording at `path`, and what is `known` of listings, say of the time before `until` (ms).

    Raises UserError where nothing was done to any listing.
    """
    content = hashlib.sha256()
    gathering = Gathering()
    number = 0
    for place, (_, record, event) in enumerate(records(path)):
        if place % 1_000 == 0:
            on_progress(place)
        if event is None or (until is not None and event.timestamp >= until):
            continue
        content.update(f"{record.timestamp}:{len(record.value or b'')}:".encode() + (record.value or b""))
        number += 1
        named = next((value for name, value in record.headers if name == SESSION), None)
        gathering.add(event, None if named is None else named.decode(errors="replace"))
    if not gathering.codes:
        when = "" if until is None else " before the time given with --until"
        raise UserError(f"{path}: no clicks, wishlists, inquiries or bookings{when}: nothing to learn from")
    return Gathered(
        gathering.corpus(known),
        gathering.searches,
        gathering.forgotten,
        number,
        gathering.newest,
        content.hexdigest(),
    )


@dataclass(slots=True)
class _Visit:
    """What a user did that may yet belong together."""

    last: int = 0
    events: list[Kept] = field(default_factory=list)


class Gathering:
    """Takes events and makes the corpus of them.

    Where events come within the grace of each other's times, the sessions are those of the windows: sorting by time and
    splitting at the gaps gives the same.
    """

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        """Listings acted on."""
        self.searches = array("q")
        self.forgotten: dict[str, int] = {}
        self.newest = 0
        self._markets: dict[str, Counter[str]] = {}
        self._prices: dict[str, float] = {}
        self._open: dict[str, _Visit] = {}
        self._collector = Collector()
        self._until_sweep = SWEEP

    def add(self, event: Event, session: str | None = None) -> None:
        """Take an event; where its source counts it to a `session`, that is one until a day has gone by without any."""
        self.newest = max(self.newest, event.timestamp)
        if isinstance(event, Tick):
            return
        if isinstance(event, Forget):
            self.forgotten[event.user_id] = max(event.timestamp, self.forgotten.get(event.user_id, 0))
            return
        if isinstance(event, Search):
            self._shown(event)
            kept: Kept = Shown(event.timestamp, event.event_id, "")
        elif isinstance(event, Leave):
            kept = Left(event.timestamp, event.event_id, event.of, event.seconds)
        else:
            self.codes.setdefault(event.listing_id, len(self.codes))
            self._of_market(event.listing_id, event.market)
            kept = Action(event.timestamp, event.event_id, KIND[type(event)], event.listing_id)
        name = event.user_id if session is None else f"{event.user_id}\0{session}"
        visit = self._open.get(name)
        if visit is None:
            visit = self._open[name] = _Visit()
        elif event.timestamp > visit.last + _gap(name) + WINDOWS.grace:
            self._close(name, visit)
            visit = self._open[name] = _Visit()
        visit.events.append(kept)
        visit.last = max(visit.last, event.timestamp)
        self._until_sweep -= 1
        if not self._until_sweep:
            self._until_sweep = SWEEP
            self._sweep(self.newest)

    def corpus(self, known: Iterable[Listing] = ()) -> Corpus:
        """All of it, with the catalogue of every listing that is known, was shown or acted on."""
        self._sweep(None)
        listings = self.catalogue(known)
        rows = np.array([listings.row[name] for name in self.codes], np.int32)
        corpus = self._collector.corpus(listings, rows)
        if not self.forgotten:
            return corpus
        return corpus.remembered({_code(user): time for user, time in self.forgotten.items()})

    def catalogue(self, known: Iterable[Listing]) -> Listings:
        """Every listing that is known or was shown or acted on, by id. What a listing's own record does not say comes
        from the events: its most frequent market and its newest price."""
        rows = {listing.listing_id: listing for listing in known}
        for listing_id, named in self._markets.items():
            listing = rows.get(listing_id) or Listing(listing_id=listing_id)
            market, price = listing.market, listing.price
            if market is None and named:
                market = min(named, key=lambda name: (-named[name], name))
            if price is None:
                price = self._prices.get(listing_id)
            rows[listing_id] = msgspec.structs.replace(listing, market=market, price=price)
        return listings_.collect(rows[listing_id] for listing_id in sorted(rows))

    def _shown(self, event: Search) -> None:
        self.searches.append(event.timestamp)
        for result in event.results:
            self._of_market(result.listing_id, event.market)
            if result.price is not None:
                self._prices[result.listing_id] = result.price

    def _of_market(self, listing_id: str, market: str | None) -> None:
        named = self._markets.get(listing_id)
        if named is None:
            named = self._markets[listing_id] = Counter()
        if market is not None:
            named[market] += 1

    def _sweep(self, now: int | None) -> None:
        """Close what is over by `now`; None: everything."""
        over = sorted(
            (visit.last, name)
            for name, visit in self._open.items()
            if now is None or visit.last + _gap(name) + WINDOWS.grace < now
        )
        for _, name in over:
            self._close(name, self._open.pop(name))

    def _close(self, name: str, visit: _Visit) -> None:
        user, _, given = name.partition("\0")
        code = _code(user)
        events = sorted(visit.events, key=order)
        for session in [events] if given else _parted(events):
            stayed = dwell(tuple(session))
            actions = [
                (
                    self.codes[event.listing_id],
                    _CODES[event.kind],
                    stayed.get(event.event_id, math.nan),
                    event.timestamp,
                )
                for event in session
                if isinstance(event, Action)
            ]
            if actions:
                self._collector.add(code, actions)


def _gap(name: str) -> int:
    """How long nothing may happen in a visit of this name (ms)."""
    return GIVEN if "\0" in name else WINDOWS.gap


def _parted(events: list[Kept]) -> Iterator[list[Kept]]:
    """The events, in their order, split at the gaps."""
    first = 0
    for at in range(1, len(events)):
        if events[at].timestamp - events[at - 1].timestamp > WINDOWS.gap:
            yield events[first:at]
            first = at
    yield events[first:]


def _code(user: str) -> int:
    """A number for a user, of 64 bits: two of them hardly ever have the same."""
    return int.from_bytes(hashlib.blake2b(user.encode(), digest_size=8).digest(), "little", signed=True)
