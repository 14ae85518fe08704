"""Session -> user embedding: the weighted mean of what was acted on, decayed step by step.

What is a function of one user's events is computed from these alone, in float64 and in the events' order, so the
same session gives the same bits in any batch, and on any machine with IEEE arithmetic.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

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


class Encoder:
    """Encodes sessions by `settings` over the vectors of a space."""

    def __init__(self, settings: Mean, space: Space) -> None:
        self.settings = settings
        self.space = space
        self._weights = {
            kind: getattr(settings, kind) for kind in ("click", "wishlist", "inquiry", "booking", "rejection")
        }
        steps = np.arange(WINDOWS.events - 1, -1, -1, dtype=np.float64)
        self._powers = np.power(settings.decay, steps)

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
        decayed = self._powers[-len(rows) :] * weights
        # Elementwise products added up row by row, and no matrix product: its bits could depend on the library.
        total = np.add.reduce(self.space.vectors[rows] * decayed[:, None], axis=0)
        norm = math.hypot(*total.tolist())
        if norm < 1e-9:
            return None
        scale = 10.0**DECIMALS
        return tuple((np.rint(total * (scale / norm)) / scale + 0.0).tolist())
