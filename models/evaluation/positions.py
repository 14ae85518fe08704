"""What is asked at next-click evaluation: which listing was clicked next, by what was clicked before in the visit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.evaluation.visits import Visits

NOTHING = -1

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Positions:
    """Every place behind the first of each visit whose listing is known, with the clicks before it.

    Codes of listings are those of the training visits; listings not known there are no part of `items`.
    """

    source: Visits
    """The visits they are places of."""
    items: Ints
    """The known listings clicked in all visits, end to end."""
    begins: Ints
    """By position: what was clicked before it is `items[begins:ends]`."""
    ends: Ints
    targets: Ints
    """By position: what was clicked."""
    visits: Ints
    """By position: the visit."""
    clicks: Ints
    """By position: which click of `source` it is."""

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, which: slice) -> Positions:
        return replace(
            self,
            begins=self.begins[which],
            ends=self.ends[which],
            targets=self.targets[which],
            visits=self.visits[which],
            clicks=self.clicks[which],
        )

    def before(self) -> tuple[Ints, Ints, Ints]:
        """Each click before each position: the position, the listing, and its age, 0 for the last before the position."""
        lengths = self.ends - self.begins
        position = np.repeat(np.arange(len(self)), lengths)
        offset = np.arange(len(position)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        items = self.items[self.begins[position] + offset]
        return position, items, lengths[position] - 1 - offset

    def last(self) -> Ints:
        """The listing clicked last before each position; NOTHING where none is known."""
        some = self.ends > self.begins
        last = np.full(len(self), NOTHING, np.int64)
        last[some] = self.items[self.ends[some] - 1]
        return last


def positions(test: Visits, train: Visits) -> Positions:
    """The positions in the visits `test` whose targets occur in `train`."""
    code = {listing: at for at, listing in enumerate(train.listings)}
    codes = np.array([code.get(listing, NOTHING) for listing in test.listings], np.int64)
    items = codes[test.items] if len(test.items) else test.items
    known = items >= 0
    passed = np.concatenate([[0], np.cumsum(known)])
    asked = known.copy()
    asked[test.starts[:-1]] = False
    clicks = np.flatnonzero(asked)
    visits = test.visit[clicks]
    return Positions(
        test, items[known], passed[test.starts[visits]], passed[clicks], items[clicks], visits, clicks
    )
