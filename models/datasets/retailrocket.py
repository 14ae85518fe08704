"""Retailrocket's shop, as published on Kaggle: `events.csv`, and of the items `item_properties_part1.csv`, `item_properties_part2.csv` and `category_tree.csv`.

A view becomes a click, an `addtocart` a wishlist (set aside, by the visitor alone), a transaction's row a booking. The
set has visitors and no sessions. Times are milliseconds; rows are in no order of time.

Properties are snapshots, week by week, and all but two are hashed: `categoryid`, which becomes the market, and
`available`. Of each the newest counts, so a listing is described as at the end of the set; the categories above its
own stand in the attribute `categories`, from its own upwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from models.datasets import tabular
from models.datasets.importing import Entry
from models.datasets.tabular import WrongCell, identifier, whole
from models.errors import UserError
from models.events import Booking, Click, Wishlist
from models.listings import Attribute, Listing

TABLES = {
    "events": ("timestamp", "visitorid", "event", "itemid"),
    "properties": ("timestamp", "itemid", "property", "value"),
    "tree": ("categoryid", "parentid"),
}
KINDS: dict[str, type[Click] | type[Wishlist] | type[Booking]] = {
    "view": Click,
    "addtocart": Wishlist,
    "transaction": Booking,
}

Files = Mapping[str, Sequence[str]]


def sort_out(paths: Sequence[str]) -> Files:
    """The files by the table that they are. Raises UserError for one that is none, and where there are no events."""
    files = tabular.sort_out(paths, TABLES)
    if not files["events"]:
        raise UserError(f"{paths[0]}: no events among the files: give events.csv too")
    return files


def events(files: Files) -> Iterator[Entry]:
    """A click, wishlist or booking for each row of the events, in the files' order.

    Event ids are the row's number over all files. Raises UserError with file, line and column.
    """
    row = 0
    for path in files["events"]:
        for line, (time, visitor, kind, item) in tabular.rows(path, TABLES["events"]):
            row += 1
            try:
                if kind not in KINDS:
                    raise WrongCell("event", " or ".join(KINDS), kind)
                event = KINDS[kind](
                    event_id=f"{row:09d}",
                    user_id=tabular.user(visitor, "visitorid"),
                    timestamp=whole(time, "timestamp"),
                    listing_id=identifier(item, "itemid"),
                )
            except WrongCell as error:
                raise UserError(f"{path}:{line}: {error}") from None
            yield event, None


def listings(files: Files) -> Iterator[Listing]:
    """The items with a category or a word on whether they are available, by id. Raises UserError with file, line and column."""
    categories: dict[str, tuple[int, str]] = {}
    available: dict[str, tuple[int, str]] = {}
    newest = {"categoryid": categories, "available": available}
    for path in files["properties"]:
        for line, (time, item, name, value) in tabular.rows(path, TABLES["properties"]):
            if name not in newest:
                continue
            try:
                at = whole(time, "timestamp")
                known = newest[name].get(identifier(item, "itemid"))
                if known is None or at >= known[0]:
                    newest[name][item] = at, identifier(value, "value")
            except WrongCell as error:
                raise UserError(f"{path}:{line}: {error}") from None
    parents = {
        category: parent
        for path in files["tree"]
        for _, (category, parent) in tabular.rows(path, TABLES["tree"])
        if parent
    }
    for item in sorted(categories.keys() | available.keys()):
        attributes: dict[str, Attribute] = {}
        _, category = categories.get(item, (0, ""))
        if category and parents:
            attributes["categories"] = _upwards(category, parents)
        if item in available:
            attributes["available"] = available[item][1] == "1"
        yield Listing(listing_id=item, market=category or None, attributes=attributes)


def _upwards(category: str, parents: Mapping[str, str]) -> tuple[str, ...]:
    path = [category]
    while (parent := parents.get(path[-1])) and parent not in path:
        path.append(parent)
    return tuple(path)
