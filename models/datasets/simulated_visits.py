"""What visitors of the simulated marketplace do, many visits at once: see docs/marketplace.md for every distribution.

Visits are rows; a visit's candidates stand at its *places*, 0 to SHORTLIST - 1. What happens becomes a table with a
row an event, in the order of visits and times, of which the marketplace makes events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.datasets.simulated_catalogue import SHOWN, Catalogue, Vector, Whole
from models.datasets.simulated_visitors import HOUR, Visitors

Single = NDArray[np.float32]
Flags = NDArray[np.bool_]

AREA = 512
"""A visitor looks in a part of the market, of at most so many listings,"""
FREE = 0.5
"""of which this part is free on the dates,"""
SHORTLIST = 64
"""and the service finds so many at most, the popular ones sooner."""
TASTE, QUALITY, PRICE, NOISE = 5.0, 0.6, 0.8, 0.4
APPEAL = 2.5
RELEVANCE_NOISE = 0.8
MORE_SHAPE, MORE_MEAN, MOST_SEARCHES = 0.4, 2.7, 25
"""Searches after a visit's first: negative binomial."""
EXAMINED: Single = (np.arange(1, SHOWN + 1) ** -0.65).astype(np.float32)
"""How likely a visitor looks at each position."""
MOST_CLICKS = 6
"""... in one list."""
AGAIN = 0.1
"""The part of the clicks on what was clicked before in the visit that is really made,"""
BACK = 0.07
"""and how often somebody goes back to the best so far after a search that is not the first."""
SAVES, ASKS, LEAVES = 0.3, 0.06, 0.3
"""Of clicks on what appeals: saved, host asked; and of all, with a `leave`."""
BOOKS = 0.25
"""Somebody with n clicks books with probability 1 - exp(-BOOKS * (n + 1 / 2)),"""
SEEN = 0.9
"""the best of what was clicked on and of this part of the last list;"""
REFUSED = 0.04
TRIES_AGAIN = 0.1
PAUSES = 0.02

SEARCH, CLICK, WISHLIST, INQUIRY, LEAVE, BOOKING, REJECTION = range(7)
SECONDS = np.array([12.0, 7.0, 3.0, 20.0, 1.0, 45.0, 240.0])
"""The median time before an event of each kind,"""
DWELL = 15.0
"""and on what was opened, where it appeals as much as APPEAL; both are log-normal,"""
SPREAD, DWELL_SPREAD = 1.3, 1.7
"""with these standard deviations of the logarithm."""
LEAST_MS = 400
NOBODY = -1


@dataclass(slots=True)
class Played:
    """What they did. `visit`, `number`, `time`, `kind`, `place`, `search` and `of` have a row an event."""

    rows: Whole
    """[n, SHORTLIST]: the rows of the listings that were free; NOBODY where there are fewer."""
    utilities: Vector
    """[n, SHORTLIST]: what each is worth to the visitor; minus infinity where there is none."""
    booked: Whole
    """[n]: the place of what was booked and not refused, or NOBODY."""
    visit: Whole
    number: Whole
    """Within the visit, from 0."""
    time: Whole
    kind: Whole
    place: Whole
    search: Whole
    """The event whose list shows what was acted on, or NOBODY."""
    of: Whole
    """Of a `leave`: the click that opened what was left."""
    shown: Whole
    """[searches, SHOWN]: the rows of the listings of each search, in the order of the events; NOBODY behind the last."""

    def cut(self, visits: int) -> None:
        """Leave out all visits but the first so many."""
        events = int(np.searchsorted(self.visit, visits))
        for name in ("visit", "number", "time", "kind", "place", "search", "of"):
            setattr(self, name, getattr(self, name)[:events])
        self.shown = self.shown[: int((self.kind == SEARCH).sum())]
        self.rows, self.utilities, self.booked = (
            self.rows[:visits],
            self.utilities[:visits],
            self.booked[:visits],
        )


def play(rng: np.random.Generator, catalogue: Catalogue, who: Visitors) -> Played:
    """Play the visits to their ends."""
    visits = len(who.begins)
    rows, popularity = _free(rng, catalogue, who)
    there = rows != NOBODY
    utility = _utility(rng, catalogue, who, rows)

    # The searches of all visits, one after the other.
    searches = 1 + np.minimum(
        rng.negative_binomial(MORE_SHAPE, MORE_SHAPE / (MORE_SHAPE + MORE_MEAN), visits), MOST_SEARCHES - 1
    )
    last = np.cumsum(searches) - 1
    visit = np.repeat(np.arange(visits), searches)
    nth = np.arange(len(visit)) - np.repeat(last + 1 - searches, searches)
    lists, shows = _lists(rng, popularity[visit], there[visit])
    clicks = _clicks(
        rng, np.take_along_axis(utility[visit], lists, 1), shows, nth, lists, visit, utility.shape
    )

    at, position = np.nonzero(clicks)
    liked = np.zeros(utility.shape, np.bool_)
    liked[visit[at], lists[at, position]] = True
    back, best = _backs(rng, clicks, lists, utility, visit, nth)

    # The last list, looked through to its end.
    in_last = np.zeros(utility.shape, np.bool_)
    np.put_along_axis(in_last, lists[last], shows[last], 1)
    considered = liked | (in_last & (rng.random(utility.shape) < SEEN))
    made = np.bincount(np.concatenate([visit[at], visit[back]]), minlength=visits)
    choice = _choose(rng, np.where(considered, utility, -np.inf), made)

    # Whatever is opened: from a list, again, and to book it.
    once, twice = np.flatnonzero(choice.books), np.flatnonzero(choice.tries)
    looked = len(at) + len(back)
    opened = _Opened(
        search=np.concatenate([at, back, last[once], last[twice]]),
        place=np.concatenate([lists[at, position], best, choice.first[once], choice.second[twice]]),
        order=np.concatenate(
            [1 + position, np.repeat(SHOWN + np.arange(1, 4), [len(back), len(once), len(twice)])]
        ),
        books=np.arange(looked + len(once) + len(twice)) >= looked,
        refused=np.concatenate(
            [np.zeros(looked, np.bool_), choice.refused[once], choice.refused_again[twice]]
        ),
    )
    listed = ((lists[opened.search] == opened.place[:, None]) & shows[opened.search]).any(1)
    worth = utility[visit[opened.search], opened.place]
    kind, parent, opening = _table(rng, len(visit), opened, worth)

    of_visit = visit[parent]
    begins = np.flatnonzero(np.diff(of_visit, prepend=NOBODY))
    number = np.arange(len(kind)) - begins[of_visit]
    acted = kind != SEARCH
    event_of_click = np.empty(len(worth), np.int64)
    event_of_click[opening[kind == CLICK]] = np.flatnonzero(kind == CLICK)
    return Played(
        rows=rows,
        utilities=utility,
        booked=choice.booked,
        visit=of_visit,
        number=number,
        time=who.begins[of_visit] + _passed(rng, kind, number, begins, of_visit, worth[opening]),
        kind=kind,
        place=np.where(acted, opened.place[opening], NOBODY),
        search=np.where(acted & listed[opening], np.flatnonzero(~acted)[parent], NOBODY),
        of=np.where(kind == LEAVE, event_of_click[opening], NOBODY),
        shown=np.where(shows, np.take_along_axis(rows[visit], lists, 1), NOBODY),
    )


@dataclass(slots=True)
class _Choice:
    """What is booked. A row a visit: who books, what, who is refused, tries the second, and is refused again."""

    books: Flags
    first: Whole
    refused: Flags
    tries: Flags
    second: Whole
    refused_again: Flags

    @property
    def booked(self) -> Whole:
        again = np.where(self.tries & ~self.refused_again, self.second, NOBODY)
        return np.where(self.books & ~self.refused, self.first, again)


def _choose(rng: np.random.Generator, utility: Vector, clicks: Whole) -> _Choice:
    """The best and the second best of what is considered; minus infinity is not."""
    visits = len(utility)
    books = (rng.random(visits) < 1 - np.exp(-BOOKS * (clicks + 0.5))) & np.isfinite(utility).any(1)
    first = utility.argmax(1)
    others = utility.copy()
    others[np.arange(visits), first] = -np.inf
    refused = books & (rng.random(visits) < REFUSED)
    tries = refused & (rng.random(visits) < TRIES_AGAIN) & np.isfinite(others).any(1)
    return _Choice(books, first, refused, tries, others.argmax(1), tries & (rng.random(visits) < REFUSED))


@dataclass(slots=True)
class _Opened:
    """What is opened. A row a click: after which search, which place, and as which within the search."""

    search: Whole
    place: Whole
    order: Whole
    books: Flags
    refused: Flags


def _table(
    rng: np.random.Generator, searches: int, opened: _Opened, worth: Vector
) -> tuple[Whole, Whole, Whole]:
    """The kinds of all events in the order in which they happen, the search that each follows or is, and what was opened
    that each is about, NOBODY of a search."""
    appeals = worth > APPEAL
    chance = rng.random((3, len(worth)))
    does = (
        np.ones(len(worth), np.bool_),
        appeals & (chance[0] < SAVES),
        appeals & (chance[1] < ASKS),
        chance[2] < LEAVES,
        opened.books,
        opened.refused,
    )
    which = [np.flatnonzero(some) for some in does]
    opening = np.concatenate([np.full(searches, NOBODY), *which])
    kind = np.repeat(np.arange(7), [searches, *map(len, which)])
    parent = np.concatenate([np.arange(searches), opened.search[opening[searches:]]])
    slot = np.where(opening == NOBODY, 0, opened.order[opening])
    order = np.argsort((parent * 64 + slot) * 8 + kind)
    return kind[order], parent[order], opening[order]


def _free(rng: np.random.Generator, catalogue: Catalogue, who: Visitors) -> tuple[Whole, Single]:
    """What is free in the visitor's part of the market, [n, SHORTLIST] rows, and the logarithms of their popularities.

    Successive draws without replacement, by popularity: the smallest of exponential draws with these rates.
    """
    weight = catalogue.log_popularity(int(who.begins[0]))
    size = catalogue.size[who.market]
    column = np.arange(min(AREA, int(catalogue.size.max())))
    around = rng.integers(0, size)
    rows: Whole = catalogue.first[who.market][:, None] + (around[:, None] + column) % size[:, None]
    time = who.begins[:, None]
    wait = rng.standard_exponential(rows.shape, np.float32) * np.exp(-weight).astype(np.float32)[rows]
    busy = rng.random(rows.shape, np.float32) >= FREE
    busy |= (column >= size[:, None]) | (catalogue.since[rows] > time) | (catalogue.until[rows] <= time)
    wait[busy] = np.inf
    if len(column) > SHORTLIST:
        found = np.argpartition(wait, SHORTLIST - 1, axis=1)[:, :SHORTLIST]
        rows, wait = np.take_along_axis(rows, found, 1), np.take_along_axis(wait, found, 1)
    popularity = weight.astype(np.float32)[rows]
    return np.where(np.isfinite(wait), rows, NOBODY), popularity


def _utility(rng: np.random.Generator, catalogue: Catalogue, who: Visitors, rows: Whole) -> Vector:
    """TASTE * cosine + QUALITY * quality - PRICE * |log(price / budget)| + NOISE * a normal draw."""
    cosine = (catalogue.latent[rows] @ who.taste[:, :, None])[:, :, 0]
    far = np.abs(np.log(np.maximum(catalogue.price, 1))[rows] - who.log_budget[:, None])
    utility = TASTE * cosine + QUALITY * catalogue.quality[rows] - PRICE * far
    utility += NOISE * rng.standard_normal(rows.shape)
    return np.where(rows == NOBODY, -np.inf, utility)


def _lists(rng: np.random.Generator, popularity: Single, there: Flags) -> tuple[Whole, Flags]:
    """The places each search shows, best first for the service, [searches, SHOWN], and which of them are listings."""
    own = popularity + RELEVANCE_NOISE * rng.standard_normal(popularity.shape, np.float32)
    own[~there] = -np.inf
    lists = np.argsort(-own, axis=1, kind="stable")[:, :SHOWN]
    return lists, np.take_along_axis(there, lists, 1)


def _clicks(
    rng: np.random.Generator,
    utility: Vector,
    shows: Flags,
    nth: Whole,
    lists: Whole,
    visit: Whole,
    shape: tuple[int, ...],
) -> Flags:
    """What is clicked on in each list. Visitors know better from search to search what they want."""
    sharpness = np.minimum(2 + nth, 5)[:, None]
    wanted = 1 / (1 + np.exp(np.clip(-sharpness * (utility - APPEAL), -50, 50)))
    clicks: Flags = rng.random(lists.shape) < EXAMINED[: lists.shape[1]] * wanted
    clicks &= shows
    clicks &= np.cumsum(clicks, 1) <= MOST_CLICKS
    # The first search in which a place was clicked.
    before = np.full(shape, MOST_SEARCHES)
    at, position = np.nonzero(clicks)
    np.minimum.at(before, (visit[at], lists[at, position]), nth[at])
    again = nth[at] > before[visit[at], lists[at, position]]
    dropped = again & (rng.random(len(at)) >= AGAIN)
    clicks[at[dropped], position[dropped]] = False
    return clicks


def _backs(
    rng: np.random.Generator, clicks: Flags, lists: Whole, utility: Vector, visit: Whole, nth: Whole
) -> tuple[Whole, Whole]:
    """Searches after which somebody goes back to the best clicked so far, and the best's places."""
    worth = np.where(clicks, np.take_along_axis(utility[visit], lists, 1), -np.inf)
    column = worth.argmax(1)
    rows = np.arange(len(visit))
    by_search = np.full((len(utility), int(nth.max()) + 1), -np.inf)
    by_search[visit, nth] = worth[rows, column]
    place = np.zeros(by_search.shape, np.int64)
    place[visit, nth] = lists[rows, column]
    best = np.maximum.accumulate(by_search, 1)
    when = np.maximum.accumulate(np.where(by_search == best, np.arange(by_search.shape[1]), 0), 1)
    goes = (nth > 0) & (best[visit, nth] > -np.inf) & (rng.random(len(visit)) < BACK)
    back = np.flatnonzero(goes)
    return back, place[visit[back], when[visit[back], nth[back]]]


def _passed(
    rng: np.random.Generator, kind: Whole, number: Whole, begins: Whole, visit: Whole, worth: Vector
) -> Whole:
    """Milliseconds from the visit's begin to each event; within a visit they rise strictly."""
    normal = rng.standard_normal((2, len(kind)))
    seconds = SECONDS[kind] * np.exp(SPREAD * normal[0])
    stays = DWELL * np.exp(0.5 * (np.minimum(worth, 6.0) - APPEAL) + DWELL_SPREAD * normal[1])
    # What was opened is looked at before anything else happens.
    seconds[1:] += np.where(kind[:-1] == CLICK, np.minimum(stays[:-1], 1_200.0), 0)
    paused = (kind == SEARCH) & (rng.random(len(kind)) < PAUSES)
    passed = np.maximum(LEAST_MS, 1000 * seconds).astype(np.int64)
    passed[paused] += ((0.5 + 3.5 * rng.random(int(paused.sum()))) * HOUR).astype(np.int64)
    passed[number == 0] = 0
    total = np.cumsum(passed)
    elapsed: Whole = total - total[begins][visit]
    return elapsed
