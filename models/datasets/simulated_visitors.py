"""Who comes to the simulated marketplace, when, and what they want: see docs/marketplace.md for every distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.datasets.simulated_catalogue import CITIES, DAY, LATENT, Catalogue, Vector, Whole, unit

PER_HOUR = 150.0
"""Visits that begin, on average over a day, unless told."""
EVENING = 0.7
"""How many more come at 18 h, and fewer at 6 h, as a part of the average."""
RETURNS = 0.25
"""The part of the visits for which somebody who came before is looked for; a fifth of them are here, or just were."""
REMEMBERED = 20_000
"""One of so many newest visitors comes again;"""
FAITHFUL = 0.6
"""this part of them to the same market, the others to any,"""
DRIFT = 0.05
"""and their tastes have moved so far in each dimension."""
TASTE_NOISE, THRIFT = 0.15, 0.35
HOUR = 3_600_000
AWAY = 2 * HOUR
"""Least time between the visits of one visitor, so that two visits are never one."""
PLAIN: Vector = np.log([price for _, _, _, price in CITIES])


@dataclass(slots=True)
class Visitors:
    """Who comes, when, and what they want. A row a visit."""

    user: Whole
    """The visitors' numbers."""
    begins: Whole
    """Milliseconds, rising."""
    market: Whole
    style: Whole
    """What the taste began from."""
    taste: Vector
    """[n, LATENT], of length one."""
    log_budget: Vector


class Crowd:
    """Draws who comes, and remembers the newest who came, in a ring: the oldest is forgotten first."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.number = 0
        """How many different visitors there have been."""
        self._user, self._market, self._style, self._free = np.zeros((4, REMEMBERED), np.int64)
        self._taste: Vector = np.zeros((REMEMBERED, LATENT))
        self._thrift: Vector = np.zeros(REMEMBERED)

    def come(self, rng: np.random.Generator, begins: Whole) -> Visitors:
        """Somebody for each visit: new, or somebody who came before and is not here at this time."""
        catalogue, size = self.catalogue, len(begins)
        up_to = np.cumsum(catalogue.share)[:-1]
        market: Whole = np.searchsorted(up_to, rng.random(size), side="right")
        fashion = np.cumsum(catalogue.fashion(int(begins[0])))[:-1]
        style: Whole = np.searchsorted(fashion, rng.random(size), side="right")
        taste = unit(catalogue.styles[style] + TASTE_NOISE * rng.standard_normal((size, LATENT)))
        thrift: Vector = THRIFT * rng.standard_normal(size)
        again, which, same = rng.random((3, size))
        row = (which * min(self.number, REMEMBERED)).astype(np.int64)
        comes = (again < RETURNS) & (self.number > 0) & (self._free[row] < begins)
        # Nobody is drawn twice at once.
        _, firsts = np.unique(np.where(comes, row, -1), return_index=True)
        comes &= np.isin(np.arange(size), firsts)
        old = row[comes]
        style[comes], thrift[comes] = self._style[old], self._thrift[old]
        taste[comes] = unit(self._taste[old] + DRIFT * rng.standard_normal((len(old), LATENT)))
        market[comes] = np.where(same[comes] < FAITHFUL, self._market[old], market[comes])
        user = np.empty(size, np.int64)
        user[comes] = self._user[old]
        user[~comes] = self.number + np.arange(size - len(old))
        self.number += size - len(old)
        return Visitors(user, begins, market, style, taste, PLAIN[market] + thrift)

    def leave(self, who: Visitors, ends: Whole) -> None:
        """Remember who was here, and when each visit ended (ms)."""
        row = who.user % REMEMBERED
        self._user[row], self._market[row], self._style[row] = who.user, who.market, who.style
        self._taste[row], self._thrift[row] = who.taste, who.log_budget - PLAIN[who.market]
        self._free[row] = ends + AWAY


def clock(hours: Vector, start_ms: int) -> Whole:
    """Milliseconds from the start to the times at which so many average hours' visits have begun: more in the evening."""
    day = np.linspace(0, 24, 1_441)
    turn = 2 * np.pi / 24
    # The integral of 1 + EVENING * sin(turn * (hour - 12)), which over a whole day is 24.
    begun = day - EVENING / turn * (np.cos(turn * (day - 12)) - np.cos(turn * -12))
    at = start_ms % DAY / HOUR
    since = float(np.interp(at, day, begun)) + hours
    passed = 24 * np.floor(since / 24) + np.interp(since % 24, begun, day) - at
    milliseconds: Whole = (passed * HOUR).astype(np.int64)
    return milliseconds
