"""From sessions to the pairs of listings that skip-gram learns from, one part of a corpus at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.training.corpus import BOOKING, Corpus

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Doubles = npt.NDArray[np.float64]

PART = 1 << 18
"""Clicks, in whole sessions, that are in memory at a time."""


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
    part = corpus.part(first, last)
    tokens, session = np.array(part.tokens), part.session
    bookings = part.kinds == BOOKING
    booked = np.full(part.sessions, -1, np.int32)
    booked[session[bookings]] = tokens[bookings]
    if shortest_click > 0:
        kept = ~(part.seconds < shortest_click) | bookings  # NaN is not less
        tokens, session = tokens[kept], session[kept]
    lengths = np.bincount(session, minlength=part.sessions)
    long = lengths >= fewest
    return Sessions(tokens[long[session]], _starts(lengths[long]), booked[long])


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
    2013, subsampling of frequent words). `counts` int64 [n] say how often each was acted on.

    A threshold below the mean frequency counts as that: where there are few listings, all are above 1/1000.
    """
    frequency = np.maximum(counts, 1) / max(int(counts.sum()), 1)
    mean = 1 / max(int(np.count_nonzero(counts)), 1)
    return np.minimum(np.sqrt(max(threshold, mean) / frequency), 1.0)


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
