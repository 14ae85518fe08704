"""The sessions of OTTO's web shop, as published: JSON lines, `{"session": 0, "events": [{"aid": 1, "ts": 1659304800025, "type": "clicks"}, ...]}`.

What the set calls a session is all that one user did in the four weeks of the training set, or in the week of the
test set, whose users are others: it is the user, and the session that the set counts it to. Clicks stay clicks, carts
become wishlists (set aside, by the visitor alone), orders bookings. Times are milliseconds. The set says nothing of
the articles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import msgspec

from models.datasets import tabular
from models.datasets.importing import Entry
from models.errors import UserError
from models.events import Booking, Click, Timestamp, Wishlist

KINDS: dict[str, type[Click] | type[Wishlist] | type[Booking]] = {
    "clicks": Click,
    "carts": Wishlist,
    "orders": Booking,
}
Number = Annotated[int, msgspec.Meta(ge=0)]


class Act(msgspec.Struct, frozen=True):
    """An event of a session."""

    aid: Number
    ts: Timestamp
    type: Literal["clicks", "carts", "orders"]


class Session(msgspec.Struct, frozen=True):
    """A line of the file."""

    session: Number
    events: tuple[Act, ...]


_decode = msgspec.json.Decoder(Session).decode


def events(paths: Sequence[str]) -> Iterator[Entry]:
    """The events of all lines, in the files' order, and their sessions.

    Event ids are the event's number over all files. Raises UserError with file, line and the place within it.
    """
    number = 0
    for path in paths:
        empty = True
        for line, text in tabular.lines(path):
            empty = False
            try:
                session = _decode(text)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise UserError(
                    f"{path}:{line}: expected session and events, each with aid, ts (milliseconds) and type "
                    f"(clicks, carts, orders): {error}"
                ) from None
            user = str(session.session)
            for act in session.events:
                number += 1
                event = KINDS[act.type](
                    event_id=f"{number:09d}", user_id=user, timestamp=act.ts, listing_id=str(act.aid)
                )
                yield event, user
        if empty:
            raise UserError(f"{path}: an empty file; expected a JSON object a line: session, events")
