"""From sessions to the pairs of listings that skip-gram learns from, one part of a corpus at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

PART = 1 << 18
"""Clicks, in whole sessions, that are in memory at a time."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """t clicks of s sessions on a catalogue of n listings. The arrays may lie on disk: they are read in slices."""

    tokens: Codes
    """int32 [t]: the row of the listing acted on."""
    starts: Ints
    """int64 [s + 1]: session k is `starts[k]` up to `starts[k + 1]`."""
    size: int
    """n"""
    booked: Bools | None = None
    """bool [t]: whether the listing was booked then."""
    seconds: Floats | None = None
    """float32 [t]: how long the visitor stayed; NaN where that is not known."""
    markets: Codes | None = None
    """int32 [n]: the listings' markets, by code; -1 where unknown."""

    def parts(self) -> list[tuple[int, int]]:
        """Sessions from .. to, of about PART clicks together."""
        bounds = np.searchsorted(self.starts, np.arange(0, int(self.starts[-1]), PART))
        edges = np.unique(np.append(bounds, len(self.starts) - 1)).tolist()
        return list(zip(edges[:-1], edges[1:], strict=True))


@dataclass(frozen=True, slots=True)
class Sessions:
    """Some sessions in memory."""

    tokens: Codes
    """int32 [t]"""
    starts: Ints
    """int64 [s + 1]"""
    booked: Codes
    """int32 [s]: the listing that the session booked last, -1 where it booked none."""


def read(corpus: Corpus, first: int, last: int, shortest_click: float, fewest: int) -> Sessions:
    """The sessions from `first` up to `last`, without clicks known to be shorter than `shortest_click` seconds, and
    without sessions that then have fewer than `fewest` clicks. A booking is no short click."""
    starts = np.asarray(corpus.starts[first : last + 1])
    inside = slice(int(starts[0]), int(starts[-1]))
    tokens = np.array(corpus.tokens[inside])
    session = np.repeat(np.arange(last - first), np.diff(starts))
    listing = np.full(last - first, -1, np.int32)
    bookings: Bools = np.zeros(len(tokens), np.bool_)
    if corpus.booked is not None:
        bookings = np.array(corpus.booked[inside])
        listing[session[bookings]] = tokens[bookings]
    if corpus.seconds is not None and shortest_click > 0:
        kept = ~(np.array(corpus.seconds[inside]) < shortest_click) | bookings  # NaN is not less
        tokens, session = tokens[kept], session[kept]
    lengths = np.bincount(session, minlength=last - first)
    long = lengths >= fewest
    return Sessions(tokens[long[session]], _starts(lengths[long]), listing[long])


def shuffled(
    sessions: Sessions, chances: Doubles | None, booked_times: int, random: np.random.Generator
) -> Sessions:
    """The sessions in a new order, booked ones `booked_times` over; each click stays with the chance of its listing,
    `chances` float64 [n], where these are given."""
    tokens, starts = sessions.tokens, sessions.starts
    many = len(sessions.booked)
    if chances is not None:
        kept = random.random(len(tokens)) < chances[tokens]
        session = np.repeat(np.arange(many), np.diff(starts))
        tokens, starts = tokens[kept], _starts(np.bincount(session[kept], minlength=many))
    times = np.where(sessions.booked >= 0, booked_times, 1)
    order = random.permutation(np.repeat(np.arange(many), times))
    made = _starts(np.diff(starts)[order])
    places = np.repeat(starts[order] - made[:-1], np.diff(made)) + np.arange(made[-1])
    return Sessions(tokens[places], made, sessions.booked[order])


def chances(counts: Ints, threshold: float) -> Doubles:
    """With what chance a click stays, by listing, float64 [n]: sqrt(threshold / frequency), at most 1 (Mikolov et al.,
    2013, equation 5). `counts` int64 [n] say how often each was acted on."""
    frequency = np.maximum(counts, 1) / max(int(counts.sum()), 1)
    return np.minimum(np.sqrt(threshold / frequency), 1.0)


def positives(
    sessions: Sessions, first: int, last: int, window: int, random: np.random.Generator
) -> tuple[Ints, Ints]:
    """Centres and contexts, int64 [p] each, of the clicks from `first` up to `last`.

    A context is a click of the same session, no farther than a reach drawn from 1 to `window` for each centre (a
    nearer one counts more often), and not on the centre's own listing. The listing that the session booked is one more
    context, wherever it stands (Grbovic and Cheng, 2018, equation 4).
    """
    places = np.arange(first, last)
    session = np.searchsorted(sessions.starts, places, side="right") - 1
    reach = random.integers(1, window + 1, last - first)
    offsets = np.concatenate([np.arange(-window, 0), np.arange(1, window + 1)])
    near = places[:, None] + offsets
    kept = (near >= sessions.starts[session, None]) & (near < sessions.starts[session + 1, None])
    kept &= np.abs(offsets) <= reach[:, None]
    centre = np.broadcast_to(sessions.tokens[first:last, None], kept.shape)[kept]
    context = sessions.tokens[near[kept]]
    centre = np.concatenate([centre, sessions.tokens[first:last]])
    context = np.concatenate([context, sessions.booked[session]])
    kept = (context >= 0) & (context != centre)
    return centre[kept].astype(np.int64), context[kept].astype(np.int64)


def _starts(lengths: Ints) -> Ints:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
