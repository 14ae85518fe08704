"""Sessions end to end, in columns that lie on disk: what is in memory grows with the listings, not with the clicks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from models.listings import Listings

KINDS = ("click", "wishlist", "inquiry", "booking", "rejection")
BOOKING, REJECTION = KINDS.index("booking"), KINDS.index("rejection")
BUFFER = 1 << 16
"""Actions in memory before they are written,"""
PART = 1 << 20
"""and so many, in whole sessions, are looked at together."""

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Corpus:
    """t actions of s sessions on listings of a catalogue of n. The arrays may lie on disk: go through them in slices."""

    listings: Listings
    tokens: Codes
    """int32 [t]: the row in the catalogue of the listing acted on."""
    kinds: npt.NDArray[np.uint8]
    """uint8 [t]: what was done, by its place in KINDS; of a step, the greatest of what was done in it."""
    seconds: Floats
    """float32 [t]: how long the visitor stayed; NaN where that is not known."""
    times: Ints
    """int64 [t]: ms."""
    starts: Ints
    """int64 [s + 1]: session k is `starts[k]` up to `starts[k + 1]`, in the order of its times."""
    users: Ints
    """int64 [s]: whose session it is; one user's sessions stand in the order of their times."""

    @property
    def sessions(self) -> int:
        """How many there are."""
        return len(self.users)

    @property
    def session(self) -> Ints:
        """int64 [t]: each action's session, from 0."""
        return np.repeat(np.arange(self.sessions), np.diff(self.starts))

    @property
    def ends(self) -> Ints:
        """int64 [s]: the time (ms) of each session's last action."""
        return self.times[self.starts[1:] - 1]

    @property
    def counts(self) -> Ints:
        """int64 [n]: how often each listing stands in it; 0 for a cold one."""
        counts = np.zeros(len(self.listings), np.int64)
        for start in range(0, len(self.tokens), PART):
            counts += np.bincount(self.tokens[start : start + PART], minlength=len(counts))
        return counts

    def parts(self, size: int | None = None) -> Iterator[tuple[int, int]]:
        """Sessions from .. to, of about `size` actions together, PART unless told."""
        first = 0
        while first < self.sessions:
            last = int(np.searchsorted(self.starts, self.starts[first] + (size or PART), side="right")) - 1
            last = min(max(last, first + 1), self.sessions)
            yield first, last
            first = last

    def part(self, first: int, last: int) -> Corpus:
        """The sessions from `first` up to `last`."""
        inside = slice(int(self.starts[first]), int(self.starts[last]))
        return Corpus(
            self.listings,
            self.tokens[inside],
            self.kinds[inside],
            self.seconds[inside],
            self.times[inside],
            self.starts[first : last + 1] - self.starts[first],
            self.users[first:last],
        )

    def remembered(self, forgotten: Mapping[int, int]) -> Corpus:
        """Without what users did up to the time (ms) given for them."""
        users = np.array(sorted(forgotten), np.int64)
        until = np.array([forgotten[user] for user in users.tolist()], np.int64)

        def kept(part: Corpus) -> Bools:
            at = np.searchsorted(users, part.users).clip(max=len(users) - 1)
            since = np.where(users[at] == part.users, until[at], -1)
            return part.times > np.repeat(since, np.diff(part.starts))

        return self.only(kept)

    def only(self, kept: Callable[[Corpus], Bools]) -> Corpus:
        """The actions that `kept`, bool [t] of a part of t actions, says, and the sessions that have any."""
        collector = Collector()
        for span in self.parts():
            part = self.part(*span)
            these = kept(part)
            lengths = np.bincount(part.session[these], minlength=part.sessions)
            collector.extend(
                part.tokens[these],
                part.kinds[these],
                part.seconds[these],
                part.times[these],
                lengths[lengths > 0],
                part.users[lengths > 0],
            )
        return collector.corpus(self.listings)


def steps(
    actions: Corpus, *, before: int | None = None, since: int | None = None, shortest: int = 2
) -> Corpus:
    """What visitors went through, step by step: rejections left out, several actions in a row on one listing once.

    Of actions dated `since` <= time < `before` (ms) where these are given. Sessions of fewer than `shortest` steps are
    left out: one of a single listing says nothing of what is near to what.
    """
    collector = Collector()
    for span in actions.parts():
        part = actions.part(*span)
        kept = part.kinds != REJECTION
        if before is not None:
            kept &= part.times < before
        if since is not None:
            kept &= part.times >= since
        tokens, session = part.tokens[kept], part.session[kept]
        if not len(tokens):
            continue
        new = np.ones(len(tokens), np.bool_)
        new[1:] = (tokens[1:] != tokens[:-1]) | (session[1:] != session[:-1])
        first = np.flatnonzero(new)
        lengths = np.bincount(session[first], minlength=part.sessions)
        long = lengths >= max(shortest, 1)
        taken = long[session[first]]
        collector.extend(
            tokens[first][taken],
            np.maximum.reduceat(part.kinds[kept], first)[taken],
            np.fmax.reduceat(part.seconds[kept], first)[taken],
            part.times[kept][first][taken],
            lengths[long],
            part.users[long],
        )
    return collector.corpus(actions.listings)


_TYPES: dict[str, Any] = {
    "tokens": np.int32,
    "kinds": np.uint8,
    "seconds": np.float32,
    "times": np.int64,
    "starts": np.int64,
    "users": np.int64,
}


class Collector:
    """Takes sessions one after the other, and gives the corpus of them."""

    def __init__(self) -> None:
        self._folder: TemporaryDirectory[str] | None = None
        self._waiting: dict[str, list[Any]] = {name: [] for name in _TYPES}
        self._waiting["starts"].append(0)
        self._actions = 0

    def add(self, user: int, actions: Sequence[tuple[int, int, float, int]]) -> None:
        """A session of a user: each action's listing, kind, seconds and time."""
        waiting = self._waiting
        for listing, kind, seconds, time in actions:
            waiting["tokens"].append(listing)
            waiting["kinds"].append(kind)
            waiting["seconds"].append(seconds)
            waiting["times"].append(time)
        self._actions += len(actions)
        waiting["starts"].append(self._actions)
        waiting["users"].append(user)
        if len(waiting["tokens"]) >= BUFFER:
            self._flush()

    def extend(
        self,
        tokens: npt.NDArray[Any],
        kinds: npt.NDArray[Any],
        seconds: npt.NDArray[Any],
        times: npt.NDArray[Any],
        lengths: Ints,
        users: Ints,
    ) -> None:
        """Many sessions: the columns of their actions, their lengths, and their users."""
        self._flush()
        ends = self._actions + np.cumsum(lengths)
        self._actions += len(tokens)
        for name, column in zip(_TYPES, (tokens, kinds, seconds, times, ends, users), strict=True):
            self._append(name, column)

    def corpus(self, listings: Listings, rows: Codes | None = None) -> Corpus:
        """All that was taken, of this catalogue; `rows` are the rows of the listings as they were numbered until now."""
        self._flush()
        read = {name: self._read(name) for name in _TYPES}
        if rows is not None:
            for start in range(0, len(read["tokens"]), PART):
                part = slice(start, start + PART)
                read["tokens"][part] = rows[read["tokens"][part]]
        if self._folder is not None:
            self._folder.cleanup()  # what is mapped stays as long as it is looked at
        return Corpus(listings, **read)

    def _flush(self) -> None:
        for name, values in self._waiting.items():
            if values:
                self._append(name, np.array(values))
                values.clear()

    def _append(self, name: str, column: npt.NDArray[Any]) -> None:
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="insession-corpus-")
        with self._path(name).open("ab") as file:
            column.astype(_TYPES[name]).tofile(file)

    def _read(self, name: str) -> npt.NDArray[Any]:
        path = self._path(name)
        if not path.exists() or not path.stat().st_size:
            return np.empty(0, _TYPES[name])
        return np.memmap(path, _TYPES[name], mode="r+")

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / name
