"""Whether ids join: what names a search or an event, and what was chosen in the lists of searches. In hashes, eight bytes each."""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from models.datasets.distinct import Distinct, Hashes
from models.events import Leave, Search, UserEvent
from models.sessions import KINDS

RESULTS = 4_000_000
"""So many results of the newest searches are held, to find the position of what is chosen in them."""


@dataclass(slots=True)
class Joins:
    """All ids that are named, and those that name them."""

    events: Distinct = field(default_factory=Distinct)
    """Event ids, each with its user."""
    named: int = 0
    """Events of users, those with one id too."""
    searches: Distinct = field(default_factory=Distinct)
    """Search ids, each with its user,"""
    anybodys: Distinct = field(default_factory=Distinct)
    """and without."""
    _of: array[int] = field(default_factory=lambda: array("q"))
    _of_anybody: array[int] = field(default_factory=lambda: array("q"))
    _left: array[int] = field(default_factory=lambda: array("q"))

    def add(self, event: UserEvent) -> None:
        """An event, in whatever order."""
        user = event.user_id
        self.events.add((user, event.event_id))
        self.named += 1
        if isinstance(event, Search):
            name = event.search_id or event.event_id
            self.searches.add((user, name))
            self.anybodys.add(name)
        elif isinstance(event, Leave):
            self._left.append(hash((user, event.of)))
        elif type(event) in KINDS and event.search_id is not None:  # type: ignore[union-attr]
            self._of.append(hash((user, event.search_id)))  # type: ignore[union-attr]
            self._of_anybody.append(hash(event.search_id))  # type: ignore[union-attr]

    @property
    def duplicates(self) -> int:
        """Events with the id of another of their user's."""
        return self.named - len(self.events)

    def of_searches(self) -> tuple[int, int, int]:
        """How many actions name a search, how many of them none of their user's, and how many of these somebody else's."""
        lost = ~self.searches.holds(_hashes(self._of))
        others = self.anybodys.holds(_hashes(self._of_anybody)[lost])
        return len(self._of), int(lost.sum()), int(others.sum())

    def of_events(self) -> tuple[int, int]:
        """How many leaves there are, and how many of them are of none of their user's events."""
        return len(self._left), int((~self.events.holds(_hashes(self._left))).sum())


def _hashes(gathered: array[int]) -> Hashes:
    return np.frombuffer(gathered, np.int64) if gathered else np.empty(0, np.int64)


@dataclass(slots=True)
class Choices:
    """What was clicked or booked in the lists of searches: where it stood, if it stood there."""

    positions: Counter[int] = field(default_factory=Counter)
    """Choices in lists of two and more, by place from 1."""
    outside: int = 0
    """Choices of a listing that the list has not."""
    expected: float = 0.0
    """The sum of the places, had the choices been made at random."""
    lists: int = 0
    disordered: int = 0
    """Lists whose `position`s do not rise."""
    _held: OrderedDict[int, array[int]] = field(default_factory=OrderedDict)
    _results: int = 0

    def add(self, event: UserEvent) -> None:
        """An event, a search before the choices in it."""
        if isinstance(event, Search):
            self._hold(event)
        elif type(event) in KINDS and event.search_id is not None:  # type: ignore[union-attr]
            self._choose(event.user_id, event.search_id, event.listing_id)  # type: ignore[union-attr]

    def _hold(self, search: Search) -> None:
        if not search.results:
            return
        self.lists += 1
        places = [result.position for result in search.results]
        self.disordered += any(later <= earlier for earlier, later in pairwise(places))
        key = hash((search.user_id, search.search_id or search.event_id))
        self._results += len(places) - len(self._held.pop(key, ()))
        self._held[key] = array("q", [hash(result.listing_id) for result in search.results])
        while self._results > RESULTS:
            self._results -= len(self._held.popitem(last=False)[1])

    def _choose(self, user_id: str, search_id: str, listing_id: str) -> None:
        results = self._held.get(hash((user_id, search_id)))
        if results is None:
            return
        try:
            place = results.index(hash(listing_id)) + 1
        except ValueError:
            self.outside += 1
            return
        if len(results) > 1:
            self.positions[place] += 1
            self.expected += (len(results) + 1) / 2
