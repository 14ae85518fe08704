"""DIGINETICA's shop, of the CIKM Cup 2016 (track 2): tables separated by semicolons, which of them each file is told by its header.

- `train-item-views.csv`: a page of a product was opened, a click. The only one that must be there.
- `train-purchases.csv`: a booking for each row.
- `train-queries.csv`: a search, with the list that was shown; `searchstring.tokens` (hashed words) is its query, the
  category browsed its market.
- `train-clicks.csv`: a click in the list of a query, which must be among the queries. A product opened from a list
  stands among the views too: give the views for next clicks, the queries with these clicks for re-ranking.
- `products.csv`, `product-categories.csv`: the listings. The market is the category; `pricelog2`, a whole number,
  is read as log2(price + 1), so that 0 is no price.

Times are `eventdate`, a day, and `timeframe`, milliseconds since the session's first query (its beginning where it is
NA), as published evaluations have them: order and gaps within a session are true, the time of day is not. Rows are in
no order of time. `userId` is NA in most sessions and in some rows of others: a session is its user's who stands in
any of its rows, else a user of its own, `session-` and its id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from models.datasets import tabular
from models.datasets.importing import Entry
from models.datasets.tabular import WrongCell, identifier
from models.errors import UserError
from models.events import Booking, Click, Result, Search
from models.listings import Listing

TABLES = {
    "queries": (
        *("queryId", "sessionId", "userId", "timeframe", "eventdate"),
        *("searchstring.tokens", "categoryId", "items"),
    ),
    "views": ("sessionId", "userId", "itemId", "timeframe", "eventdate"),
    "underscored": ("session_id", "user_id", "item_id", "timeframe", "eventdate"),
    "clicks": ("queryId", "timeframe", "itemId"),
    "purchases": ("sessionId", "userId", "itemId", "timeframe", "eventdate", "ordernumber"),
    "products": ("itemId", "pricelog2", "product.name.tokens"),
    "categories": ("itemId", "categoryId"),
}
"""`underscored` are the views as some copies have them."""
VIEWS = ("views", "underscored", "purchases")
SHOWN = 1_000
"""A search holds so many results at the most."""
NOBODY = ("", "NA")

Files = Mapping[str, Sequence[str]]


def sort_out(paths: Sequence[str]) -> Files:
    """The files by the table that they are. Raises UserError for one that is none, and where nobody does anything."""
    files = tabular.sort_out(paths, TABLES, delimiter=";")
    if not any(files[name] for name in (*VIEWS, "queries")):
        raise UserError(f"{paths[0]}: no views, purchases or queries among the files")
    if files["clicks"] and not files["queries"]:
        raise UserError(f"{files['clicks'][0]}: its clicks are in lists of train-queries.csv: give that too")
    return files


def events(files: Files, skipped: Counter[str]) -> Iterator[Entry]:
    """The events of all tables, one after the other, and their sessions. Adds to `skipped`.

    Event ids are the row's number over all tables. Holds in memory whose each session with a user is, and with
    `clicks` also the session of each query. Raises UserError with file, line and column.
    """
    users = _users(files)
    queries: dict[str, tuple[str, int]] = {}
    row = 0
    for name in ("queries", *VIEWS, "clicks"):
        for path in files[name]:
            for line, cells in tabular.rows(path, TABLES[name], delimiter=";"):
                row += 1
                entry: Entry | None
                try:
                    if name == "queries":
                        entry = _search(f"{row:09d}", cells, users, queries if files["clicks"] else None)
                    elif name == "clicks":
                        entry = _click(f"{row:09d}", cells, users, queries)
                    else:
                        entry = _view(f"{row:09d}", cells, users, Booking if name == "purchases" else Click)
                except WrongCell as error:
                    raise UserError(f"{path}:{line}: {error}") from None
                if entry is None:
                    skipped["a click in a list of no query"] += 1
                else:
                    yield entry


def _users(files: Files) -> dict[str, str]:
    """The users of sessions that have one."""
    users: dict[str, str] = {}
    for name in ("queries", *VIEWS):
        columns = ("session_id", "user_id") if name == "underscored" else ("sessionId", "userId")
        for path in files[name]:
            for _, (session, user) in tabular.rows(path, columns, delimiter=";"):
                if user not in NOBODY:
                    users.setdefault(session, user)
    return users


def _user(session: str, users: Mapping[str, str]) -> str:
    return tabular.user(users.get(session) or f"session-{identifier(session, 'sessionId')}", "userId")


def _time(frame: str, day: int) -> int:
    if frame in NOBODY:
        return day
    time = day + tabular.whole(frame, "timeframe", "milliseconds")
    if time > tabular.LAST_MS:
        raise WrongCell("timeframe", "milliseconds since the session's first query", frame)
    return time


def _search(
    name: str, cells: list[str], users: Mapping[str, str], queries: dict[str, tuple[str, int]] | None
) -> Entry:
    query, session, _, frame, date, tokens, category, items = cells
    day = tabular.day(date, "eventdate")
    if queries is not None:
        queries[query] = session, day
    shown = items.split(",", SHOWN)[:SHOWN] if items not in NOBODY else []
    search = Search(
        event_id=name,
        user_id=_user(session, users),
        timestamp=_time(frame, day),
        results=tuple(
            [
                Result(listing_id=identifier(item, "items"), position=position)
                for position, item in enumerate(shown, 1)
            ]
        ),
        query=tokens if tokens not in NOBODY else None,
        market=identifier(category, "categoryId") if category not in (*NOBODY, "0") else None,
        search_id=identifier(query, "queryId"),
    )
    return search, session


def _click(
    name: str, cells: list[str], users: Mapping[str, str], queries: Mapping[str, tuple[str, int]]
) -> Entry | None:
    query, frame, item = cells
    if query not in queries:
        return None
    session, day = queries[query]
    click = Click(
        event_id=name,
        user_id=_user(session, users),
        timestamp=_time(frame, day),
        listing_id=identifier(item, "itemId"),
        search_id=query,
    )
    return click, session


def _view(name: str, cells: list[str], users: Mapping[str, str], kind: type[Click] | type[Booking]) -> Entry:
    session, _, item, frame, date, *_ = cells
    event = kind(
        event_id=name,
        user_id=_user(session, users),
        timestamp=_time(frame, tabular.day(date, "eventdate")),
        listing_id=identifier(item, "itemId"),
    )
    return event, session


def listings(files: Files) -> Iterator[Listing]:
    """The products of the tables of products and categories, by id. Raises UserError with file, line and column."""
    products = _by_item(files, "products")
    categories = _by_item(files, "categories")
    for item in sorted(products.keys() | categories.keys()):
        logarithm, tokens = products.get(item, ("", ""))
        (category,) = categories.get(item, ("",))
        yield Listing(
            listing_id=item,
            market=category or None,
            price=2 ** float(logarithm) - 1 or None if logarithm else None,
            attributes={"name": tuple(tokens.split(","))} if tokens not in NOBODY else {},
        )


def _by_item(files: Files, name: str) -> dict[str, tuple[str, ...]]:
    found = {}
    for path in files[name]:
        for line, (item, *cells) in tabular.rows(path, TABLES[name], delimiter=";"):
            try:
                identifier(item, "itemId")
                if name == "products":
                    if cells[0] in NOBODY:
                        cells[0] = ""
                    elif not 0 <= tabular.number(cells[0], "pricelog2") <= 39:
                        raise WrongCell("pricelog2", "a logarithm from 0 to 39", cells[0])
            except WrongCell as error:
                raise UserError(f"{path}:{line}: {error}") from None
            found[item] = tuple(cells)
    return found
