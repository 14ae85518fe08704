"""The hotel searches of the RecSys Challenge 2019, as trivago published them: a row an action, `step` by `step`.

A `clickout item` shows the list (`impressions`) in which it happened: it becomes a search and a click in it, at the
same second, the search first. Where its reference is hidden, as in the challenge's test set, it becomes the search
alone. Other actions on an item become clicks; actions without an item are counted and left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from models.datasets import tabular
from models.datasets.importing import Entry
from models.datasets.seen import Seen
from models.datasets.tabular import WrongCell, identifier, milliseconds
from models.errors import UserError
from models.events import Click, Result, Search
from models.listings import Listing

COLUMNS = ("user_id", "session_id", "timestamp", "action_type", "reference", "city", "impressions")
OPTIONAL = ("prices",)
ITEM_ACTIONS = ("clickout item", "search for item")
"""... and all that begin with `interaction item`."""
SHOWN = 1_000
"""A search holds so many results at the most."""

KINDS = (
    "House / Apartment",
    "Serviced Apartment",
    "Bed & Breakfast",
    "Pousada (BR)",
    "Guest House",
    "Hostel",
    "Motel",
    "Resort",
    "Hotel",
)
"""Properties that say what kind of place it is, the more telling first."""


def events(paths: Sequence[str], skipped: Counter[str], seen: Seen | None = None) -> Iterator[Entry]:
    """The events of the files, in the files' order, and the sessions they name. Adds to `skipped` and `seen`.

    Event ids are the row's number over all files, so they sort in the source's order. Raises UserError with file,
    line and column.
    """
    row = 0
    for path in paths:
        for line, cells in tabular.rows(path, COLUMNS, OPTIONAL):
            row += 1
            try:
                found = _events(f"{row:09d}", cells, skipped, seen)
            except WrongCell as error:
                raise UserError(f"{path}:{line}: {error}") from None
            for event in found:
                yield event, cells[1] or None


def _events(
    name: str, cells: list[str], skipped: Counter[str], seen: Seen | None
) -> tuple[Search | Click, ...]:
    user_id, session, seconds, action, reference, city, impressions, prices = cells
    if action not in ITEM_ACTIONS and not action.startswith("interaction item"):
        skipped[f"{action or 'no action'}: not about an item"] += 1
        return ()
    user = tabular.user(user_id, "user_id")
    identifier(session, "session_id")
    time = milliseconds(seconds, "timestamp")
    market = identifier(city, "city") if city else None
    item = identifier(reference, "reference") if reference.isascii() and reference.isdigit() else None
    results = _results(impressions, prices) if action == "clickout item" and impressions else ()
    if seen is not None:
        _see(seen, time, market, item, results)
    if item is None:
        skipped[f"{action}: no item in its reference"] += 1
    search = Search(
        event_id=f"{name}a",
        search_id=f"{name}a",
        user_id=user,
        timestamp=time,
        market=market,
        results=results,
    )
    if item is None:
        return (search,) if results else ()
    click = Click(
        event_id=f"{name}b",
        user_id=user,
        timestamp=time,
        listing_id=item,
        market=market,
        search_id=search.search_id if results else None,
    )
    return (search, click) if results else (click,)


def _results(impressions: str, prices: str) -> tuple[Result, ...]:
    items = impressions.split("|")
    if len(items) > SHOWN:
        raise WrongCell("impressions", f"at most {SHOWN} items", f"{len(items)} items")
    amounts: list[float | None] = [None] * len(items)
    if prices:
        amounts = [_price(price) for price in prices.split("|")]
        if len(amounts) != len(items):
            raise WrongCell(
                "prices", f"{len(items)} prices, one for each impression", f"{len(amounts)} prices"
            )
    return tuple(
        [
            Result(listing_id=identifier(item, "impressions"), position=position, price=price)
            for position, (item, price) in enumerate(zip(items, amounts, strict=True), 1)
        ]
    )


def _price(text: str) -> float | None:
    if not text:
        return None
    price = tabular.number(text, "prices")
    if not 0 <= price <= 1e12:
        raise WrongCell("prices", "a price from 0 to 1e12", text)
    return price or None  # 0 is not known


def _see(seen: Seen, time: int, market: str | None, item: str | None, results: tuple[Result, ...]) -> None:
    for result in results:
        if result.price is not None:
            seen.price(result.listing_id, time, result.price)
    for hotel in (*(result.listing_id for result in results), *([item] if item is not None else [])):
        seen.listings.add(hotel)
        if market is not None:
            seen.markets[hotel, market] += 1


def listings(seen: Seen, properties: Mapping[str, Sequence[str]]) -> Iterator[Listing]:
    """The hotels seen and those with properties, by id. To be taken when all events have been.

    The market is the city where the hotel was seen most often, the price its newest.
    """
    seen.listings |= properties.keys()
    seen.attributes |= {item: {"properties": tuple(own)} for item, own in properties.items() if own}
    for listing in seen.described():
        own = properties.get(listing.listing_id, ())
        yield msgspec.structs.replace(listing, type=next((kind for kind in KINDS if kind in own), None))


def properties(path: str) -> dict[str, list[str]]:
    """Each hotel's properties, from the columns item_id and properties (joined by |). Raises UserError with file, line and column."""
    found = {}
    for line, (item, joined) in tabular.rows(path, ("item_id", "properties")):
        try:
            found[identifier(item, "item_id")] = joined.split("|") if joined else []
        except WrongCell as error:
            raise UserError(f"{path}:{line}: {error}") from None
    return found
