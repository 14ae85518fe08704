"""Visits, counted while events pass: their lengths, their gaps, and those that no person makes. Holds what is open only."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass

from models.datasets.distinct import Distinct
from models.sessions import WINDOWS, Windows

HOUR = 3_600_000
FAST = 50
"""So many actions and more, at more than one a second from the first to the last: a robot's."""
AWAKE = 12 * HOUR
"""Nobody goes on for longer without a pause of half an hour."""
EXAMPLES = 5


@dataclass(slots=True)
class _Open:
    first: int
    last: int
    actions: int = 1


class Visits:
    """Visits by user, as the windows part them; each partition's users apart, as long as records come in its order."""

    def __init__(self, windows: Windows = WINDOWS) -> None:
        self.windows = windows
        self.lengths: Counter[int] = Counter()
        """Visits by number of actions."""
        self.gaps: Counter[int] = Counter()
        """Gaps within visits by the bits of their milliseconds: 0 none, 1 one, 2 to 3, 4 to 7, ..."""
        self.robots = Distinct()
        self.robot_actions = 0
        self.examples: list[str] = []
        """The first robots' user ids."""
        self._open: defaultdict[int, OrderedDict[str, _Open]] = defaultdict(OrderedDict)
        self._newest: Counter[int] = Counter()

    def add(self, partition: int, user: str, time: int) -> None:
        """An action of a user."""
        users = self._open[partition]
        visit = users.get(user)
        if visit is not None and visit.first - self.windows.gap <= time <= visit.last + self.windows.gap:
            self.gaps[max(0, time - visit.last).bit_length()] += 1
            visit.first, visit.last = min(visit.first, time), max(visit.last, time)
            visit.actions += 1
        else:
            if visit is not None:
                self._close(user, visit)
            users[user] = _Open(time, time)
        users.move_to_end(user)
        self._newest[partition] = newest = max(self._newest[partition], time)
        horizon = newest - self.windows.gap - self.windows.grace
        while users and users[oldest := next(iter(users))].last < horizon:
            self._close(oldest, users.pop(oldest))

    def end(self) -> None:
        """No action follows: close what is open."""
        for users in self._open.values():
            for user, visit in users.items():
                self._close(user, visit)
        self._open.clear()

    def _close(self, user: str, visit: _Open) -> None:
        self.lengths[visit.actions] += 1
        lasted = visit.last - visit.first
        if (visit.actions >= FAST and lasted < visit.actions * 1_000) or lasted > AWAKE:
            self.robots.add(user)
            self.robot_actions += visit.actions
            if len(self.examples) < EXAMPLES and user not in self.examples:
                self.examples.append(user)

    @property
    def actions(self) -> int:
        return sum(length * visits for length, visits in self.lengths.items())

    def median_length(self) -> int:
        """How many actions half of the visits have at the most; 0 where there are no visits."""
        return _median(self.lengths)

    def median_gap(self) -> int:
        """The median gap in milliseconds, to a factor of two."""
        bits = _median(self.gaps)
        return (1 << bits) - 1


def _median(counts: Counter[int]) -> int:
    left = counts.total() / 2
    for value, count in sorted(counts.items()):
        left -= count
        if left <= 0:
            return value
    return 0
