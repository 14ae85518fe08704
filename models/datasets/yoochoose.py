"""The clicks and buys of the RecSys Challenge 2015, as YOOCHOOSE published them: comma separated, without a header.

Which of the two a file is, its number of columns says; yoochoose-test.dat is like the clicks. The set knows no users:
a session is its user too. A buy becomes a booking; its price, 0 where the set does not tell it, is the item's.

A click's category is the context of the click: `S` a special offer, 0 unknown, 1 to 12 a category, any other number a
brand. So it is the listing's only in the long run: its market is the category it was clicked in most often.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from models.datasets import tabular
from models.datasets.importing import Entry
from models.datasets.seen import Seen
from models.datasets.tabular import WrongCell, identifier, iso
from models.errors import UserError
from models.events import Booking, Click

CLICKS = ("Session ID", "Timestamp", "Item ID", "Category")
BUYS = ("Session ID", "Timestamp", "Item ID", "Price", "Quantity")
CATEGORIES = frozenset(map(str, range(1, 13)))


def columns(cells: Sequence[str]) -> tuple[str, ...] | None:
    """The columns of a file with such a first line; None where it is none of this set's."""
    found = next((names for names in (CLICKS, BUYS) if len(names) == len(cells)), None)
    return found if found and cells[0].isdigit() and cells[1][10:11] == "T" else None


def events(paths: Sequence[str], seen: Seen) -> Iterator[Entry]:
    """A click or booking for each row, in the files' order, and its session. Adds to `seen`.

    Event ids are the row's number over all files, so they sort in the source's order. Raises UserError with file,
    line and column.
    """
    row = 0
    for path in paths:
        first = tabular.header(path)
        names = columns(first)
        if names is None:
            raise UserError(
                f"{path}:1: expected, without a header, {', '.join(CLICKS)} or {', '.join(BUYS)}, "
                f"the timestamp like 2014-04-07T10:51:09.277Z, found {', '.join(map(repr, first[:6]))[:200] or 'nothing'}"
            )
        for line, cells in tabular.rows(path, names, headed=False):
            row += 1
            try:
                event = (_click if names is CLICKS else _buy)(f"{row:09d}", cells, seen)
            except WrongCell as error:
                raise UserError(f"{path}:{line}: {error}") from None
            yield event, cells[0]


def _click(name: str, cells: list[str], seen: Seen) -> Click:
    session, time, item, category = cells
    click = Click(
        event_id=name,
        user_id=tabular.user(session, "Session ID"),
        timestamp=iso(time, "Timestamp"),
        listing_id=identifier(item, "Item ID"),
    )
    seen.listings.add(item)
    if category in CATEGORIES:
        seen.markets[item, category] += 1
    elif category == "S":
        seen.attributes.setdefault(item, {})["special_offer"] = True
    elif not category.isdigit():
        raise WrongCell("Category", "`S` or a number", category)
    elif category != "0":
        seen.attributes.setdefault(item, {})["brand"] = category
    return click


def _buy(name: str, cells: list[str], seen: Seen) -> Booking:
    session, time, item, price, _ = cells
    booking = Booking(
        event_id=name,
        user_id=tabular.user(session, "Session ID"),
        timestamp=iso(time, "Timestamp"),
        listing_id=identifier(item, "Item ID"),
    )
    seen.listings.add(item)
    amount = tabular.price(price, "Price")
    if amount is not None:
        seen.price(item, booking.timestamp, amount)
    return booking
