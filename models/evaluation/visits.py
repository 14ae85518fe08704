"""The clicks of a data set as next-click evaluation takes them: visit after visit, each a sequence of listings.

A visit is what the source counts to one session; where it names none, it ends where the user was silent for the
windows' gap. Clicks alone are steps: other events of a recording are not. A listing clicked several times in a row
stands as often as the data says. What a user asked to have forgotten is left out, and so is a click that was
recorded twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from models.datasets.importing import Entry
from models.events import Click, Forget
from models.sessions import WINDOWS

STEP = 10_000
"""Events between two looks at the progress."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Visits:
    """Visits end to end, in the order of their first clicks; times in milliseconds."""

    listings: list[str]
    """By code: the more often a listing was clicked, the lower is its code; of equals, by id."""
    items: Ints
    """The code of each click's listing."""
    times: Ints
    starts: Ints
    """Where each visit begins, and behind the last the number of clicks."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def counts(self) -> Ints:
        """How often each listing was clicked, by code: never increasing."""
        return np.bincount(self.items, minlength=len(self.listings))

    @cached_property
    def visit(self) -> Ints:
        """The visit of each click."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    @property
    def first(self) -> int:
        """The time of the first click."""
        return int(self.times.min())

    @property
    def last(self) -> int:
        """The time of the last click."""
        return int(self.times.max())

    def before(self, time: int) -> Visits:
        """The clicks before a time."""
        return self._kept(self.times < time)

    def chosen(self, which: Ints) -> Visits:
        """Some of the visits, whole."""
        return self._kept(np.isin(self.visit, which))

    def _kept(self, clicks: npt.NDArray[np.bool_]) -> Visits:
        listings = np.array(self.listings, object)
        return _visits(listings, self.items[clicks], self.times[clicks], self.visit[clicks])


def gather(
    entries: Iterable[Entry],
    on_progress: Callable[[int], None] = lambda done: None,
    *,
    gap: int = WINDOWS.gap,
) -> Visits:
    """The visits in a stream of events."""
    visits: list[int] = []
    times: list[int] = []
    items: list[int] = []
    events: list[str] = []
    codes: dict[str, int] = {}
    named: dict[tuple[str, str | None], int] = {}
    forgotten: dict[str, int] = {}
    for done, (event, session) in enumerate(entries):
        if done % STEP == 0:
            on_progress(done)
        if type(event) is Click:
            visits.append(named.setdefault((event.user_id, session), len(named)))
            times.append(event.timestamp)
            items.append(codes.setdefault(event.listing_id, len(codes)))
            events.append(event.event_id)
        elif isinstance(event, Forget):
            forgotten[event.user_id] = max(event.timestamp, forgotten.get(event.user_id, -1))
    visit, time, item = (np.array(column, np.int64) for column in (visits, times, items))
    since = np.array([forgotten.get(user, -1) for user, _ in named], np.int64)
    order = np.lexsort((time, visit))
    order = order[time[order] > since[visit[order]]]
    order = _settled(order, visit, time, events)
    visit, time, item = visit[order], time[order], item[order]
    open_ended = np.array([session is None for _, session in named], np.bool_)
    begins = np.ones(len(visit), np.bool_)
    begins[1:] = (visit[1:] != visit[:-1]) | ((np.diff(time) > gap) & open_ended[visit[1:]])
    return _visits(np.array(list(codes), object), item, time, np.cumsum(begins) - 1)


def _settled(order: Ints, visit: Ints, time: Ints, events: list[str]) -> Ints:
    """The order with clicks of one visit and one moment by event id, each event id once."""
    same = (np.diff(visit[order]) == 0) & (np.diff(time[order]) == 0)
    if not same.any():
        return order
    run = np.concatenate([[0], np.cumsum(~same)])
    tied = np.flatnonzero(np.bincount(run)[run] > 1)
    settled = order.tolist()
    kept = np.ones(len(order), np.bool_)
    edges = [*np.flatnonzero(np.diff(run[tied], prepend=-1)).tolist(), len(tied)]
    for begin, end in pairwise(edges):
        low, high = int(tied[begin]), int(tied[end - 1]) + 1
        settled[low:high] = sorted(settled[low:high], key=events.__getitem__)
        for at in range(low + 1, high):
            kept[at] = events[settled[at]] != events[settled[at - 1]]
    return np.array(settled, np.int64)[kept]


def _visits(listings: npt.NDArray[np.object_], items: Ints, times: Ints, visit: Ints) -> Visits:
    """Visits of clicks that stand visit by visit, in each by time: in the order of their beginnings, recoded by popularity."""
    begins = np.ones(len(items), np.bool_)
    begins[1:] = visit[1:] != visit[:-1]
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=len(items))
    order = np.argsort(times[starts], kind="stable")
    ends = np.cumsum(lengths[order])
    # The place in the old order of each click in the new one.
    place = np.arange(len(items)) + np.repeat(starts[order] - (ends - lengths[order]), lengths[order])
    counts = np.bincount(items, minlength=len(listings))
    known = np.flatnonzero(counts)
    ids = listings[known]
    by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
    ranked = known[by_id[np.argsort(-counts[known[by_id]], kind="stable")]]
    code = np.full(len(listings), -1, np.int64)
    code[ranked] = np.arange(len(ranked))
    return Visits(
        listings[ranked].tolist(),
        code[items[place]],
        times[place],
        np.concatenate([[0], ends]).astype(np.int64),
    )
