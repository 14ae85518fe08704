"""What type of user did what: a user's type at an action is that of the two weeks before it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models.sessions import WINDOWS
from models.training.corpus import BOOKING, REJECTION, Corpus
from models.types import user_type


def typed(actions: Corpus) -> Iterator[tuple[int, int, int, int, str | None]]:
    """Each action's user, listing, kind and time, and the type that the user then had, None for somebody of whom nothing
    was known; each user's in the order of their times. A rejection is the host's doing and makes nobody another type."""
    ranges = actions.listings.ranges
    nobody = (-WINDOWS.history - 1, 0, 0, 0, False)
    users: dict[int, tuple[int, int, int, int, bool]] = {}
    for span in actions.parts():
        part = actions.part(*span)
        of = np.repeat(part.users, np.diff(part.starts)).tolist()
        columns = (part.times.tolist(), part.tokens.tolist(), part.kinds.tolist())
        for user, time, row, kind in zip(of, *columns, strict=True):
            last, acted, in_range, priced, booked = users.get(user, nobody)
            if time > last + WINDOWS.history:
                acted, in_range, priced, booked = 0, 0, 0, False
            yield user, row, kind, time, user_type(acted, in_range, priced, booked) if acted else None
            if kind == REJECTION:
                continue
            if ranges[row] >= 0:
                in_range, priced = in_range + ranges[row], priced + 1
            users[user] = (time, acted + 1, in_range, priced, booked or kind == BOOKING)
