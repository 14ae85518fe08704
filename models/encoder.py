"""Session -> user embedding: the weighted sum of what was acted on, by what was done and how many steps ago.

The plain encoder is a decayed mean. A learned one has a weight for each dimension and age, and a vector to start from.

What is a function of one user's events is computed from these alone, in float64 and in the events' order, so the
same session gives the same bits in any batch, and on any machine with IEEE arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from models.history import LONG_CLICK_SECONDS, dwell
from models.sessions import WINDOWS, Action, Session
from models.space import Space

DECIMALS = 6
"""An embedding is rounded to so many decimals: a record on the topic and its JSON are the same numbers."""


class Mean(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the decayed mean: weight by what was done, and what is left of it after one step."""

    decay: float = 0.7
    click: float = 1.0
    long_click: float = 1.5
    wishlist: float = 2.0
    inquiry: float = 3.0
    booking: float = 3.0
    rejection: float = 0.0


@dataclass(frozen=True, slots=True)
class Learned:
    """What a learned encoder has in place of `Mean.decay`."""

    ages: npt.NDArray[np.float32]
    """[a, d]: by age in steps, from 0, what an action weighs in each dimension; older ones weigh nothing."""
    start: npt.NDArray[np.float32]
    """[d]: what the sum starts from."""


class Encoder:
    """Encodes sessions by `settings` over the vectors of a space, with `learned` where there is such."""

    def __init__(self, settings: Mean, space: Space, learned: Learned | None = None) -> None:
        self.settings = settings
        self.space = space
        self.learned = learned
        self._weights = {
            kind: getattr(settings, kind) for kind in ("click", "wishlist", "inquiry", "booking", "rejection")
        }
        if learned is not None:
            self._ages = learned.ages[::-1].astype(np.float64)
            self._start = learned.start.astype(np.float64)
        else:
            steps = np.arange(WINDOWS.events - 1, -1, -1, dtype=np.float64)
            self._ages = np.power(settings.decay, steps)[:, None]
            self._start = np.zeros(space.vectors.shape[1])

    def encode(self, session: Session | None) -> tuple[float, ...] | None:
        """The session's embedding, [d], of unit length and rounded; None where nothing known was acted on.

        A step is an action on a known listing that weighs anything: unknown ones and rejections don't age the others.
        """
        if session is None:
            return None
        rows = []
        weights = []
        seconds = dwell(session.events)
        for event in session.events:
            if not isinstance(event, Action):
                continue
            row = self.space.row.get(event.listing_id)
            weight = self._weights[event.kind]
            if row is None or not weight:
                continue
            if event.kind == "click" and seconds.get(event.event_id, 0.0) >= LONG_CLICK_SECONDS:
                weight = self.settings.long_click
            rows.append(row)
            weights.append(weight)
        if not rows:
            return None
        rows, weights = rows[-len(self._ages) :], weights[-len(self._ages) :]
        aged = self._ages[-len(rows) :] * np.array(weights)[:, None]
        # Elementwise products added up row by row, and no matrix product: its bits could depend on the library.
        total = np.add.reduce(self.space.vectors.take(rows, axis=0) * aged, axis=0)
        if not total.any():
            return None  # Nothing is known of what was acted on.
        total = total + self._start
        norm = math.hypot(*total.tolist())
        if norm < 1e-9:
            return None
        scale = 10.0**DECIMALS
        return tuple((np.rint(total * (scale / norm)) / scale + 0.0).tolist())
