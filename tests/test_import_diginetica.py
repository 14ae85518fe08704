from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from models.datasets import diginetica
from models.errors import UserError
from models.events import Booking, Click, Event, Result, Search
from models.listings import Listing

DAY = 1_462_752_000_000  # 9 May 2016
FILES = {
    "train-item-views.csv": "sessionId;userId;itemId;timeframe;eventdate\n"
    "1;NA;81766;526309;2016-05-09\n1;4;31331;1031018;2016-05-09\n2;NA;81766;NA;2016-05-10\n",
    "train-purchases.csv": "sessionId;userId;timeframe;eventdate;ordernumber;itemId\n"
    "1;NA;1031019;2016-05-09;17;31331\n",
    "train-queries.csv": "queryId;sessionId;userId;timeframe;duration;eventdate;searchstring.tokens;categoryId;items;is.test\n"
    "7;1;NA;500000;300;2016-05-09;12,45;0;81766,31331;FALSE\n8;2;;5;300;2016-05-10;NA;99;81766;TRUE\n",
    "train-clicks.csv": "queryId;timeframe;itemId\n7;526300;31331\n9;1;31331\n",
    "products.csv": "itemId;pricelog2;product.name.tokens\n81766;5;10,11\n31331;0;\n",
    "product-categories.csv": "itemId;categoryId\n81766;99\n5;98\n",
}


def write(folder: Path, *names: str, **changed: str) -> list[str]:
    for name in names:
        (folder / name).write_text(changed.get(name.partition(".")[0].replace("-", "_"), FILES[name]))
    return [str(folder / name) for name in names]


def read(paths: list[str], skipped: Counter[str] | None = None) -> list[tuple[Event, str | None]]:
    return list(diginetica.events(diginetica.sort_out(paths), Counter() if skipped is None else skipped))


def test_views_are_clicks_at_the_day_and_the_time_within_the_session(tmp_path: Path) -> None:
    assert read(write(tmp_path, "train-item-views.csv")) == [
        (Click(event_id="000000001", user_id="4", timestamp=DAY + 526309, listing_id="81766"), "1"),
        (Click(event_id="000000002", user_id="4", timestamp=DAY + 1031018, listing_id="31331"), "1"),
        (
            Click(event_id="000000003", user_id="session-2", timestamp=DAY + 86_400_000, listing_id="81766"),
            "2",
        ),
    ]


def test_a_copy_with_underscores_in_its_header_gives_the_same(tmp_path: Path) -> None:
    [path] = write(tmp_path, "train-item-views.csv")
    expected = read([path])
    _, rest = FILES["train-item-views.csv"].split("\n", 1)
    Path(path).write_text(f"session_id;user_id;item_id;timeframe;eventdate\n{rest}")
    assert read([path]) == expected


def test_queries_are_searches_and_clicks_stand_in_their_lists(tmp_path: Path) -> None:
    skipped: Counter[str] = Counter()
    paths = write(tmp_path, "train-clicks.csv", "train-purchases.csv", "train-queries.csv")
    assert read(paths, skipped) == [
        (
            Search(
                event_id="000000001",
                user_id="session-1",
                timestamp=DAY + 500_000,
                results=(Result(listing_id="81766", position=1), Result(listing_id="31331", position=2)),
                query="12,45",
                search_id="7",
            ),
            "1",
        ),
        (
            Search(
                event_id="000000002",
                user_id="session-2",
                timestamp=DAY + 86_400_005,
                results=(Result(listing_id="81766", position=1),),
                market="99",
                search_id="8",
            ),
            "2",
        ),
        (
            Booking(event_id="000000003", user_id="session-1", timestamp=DAY + 1031019, listing_id="31331"),
            "1",
        ),
        (
            Click(
                event_id="000000004",
                user_id="session-1",
                timestamp=DAY + 526300,
                listing_id="31331",
                search_id="7",
            ),
            "1",
        ),
    ]
    assert skipped == {"a click in a list of no query": 1}


def test_products_and_categories_are_the_listings(tmp_path: Path) -> None:
    paths = write(tmp_path, "product-categories.csv", "train-item-views.csv", "products.csv")
    assert list(diginetica.listings(diginetica.sort_out(paths))) == [
        Listing(listing_id="31331"),
        Listing(listing_id="5", market="98"),
        Listing(listing_id="81766", market="99", price=31.0, attributes={"name": ("10", "11")}),
    ]
    assert math.log2(31 + 1) == 5


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("train-item-views.csv", "1;NA;2;soon;2016-05-09", ":5: column `timeframe`: expected milliseconds"),
        ("train-item-views.csv", "1;NA;2;5;May", ":5: column `eventdate`: expected an ISO date"),
        ("train-item-views.csv", "1;NA;;5;2016-05-09", ":5: column `itemId`: expected 1 to 256"),
        ("train-item-views.csv", ";NA;2;5;2016-05-09", ":5: column `sessionId`: expected 1 to 256"),
        ("train-item-views.csv", "1;NA;2;5", ":5: expected 5 fields"),
        ("train-queries.csv", "7;1;NA;5;3;2016-05-09;;0;1,,2;FALSE", ":4: column `items`: expected 1 to"),
        ("products.csv", "5;-1;1", ":4: column `pricelog2`: expected a logarithm"),
    ],
)
def test_a_wrong_row_is_named_by_file_line_and_column(
    tmp_path: Path, name: str, row: str, message: str
) -> None:
    paths = write(tmp_path, *{name: None, "train-item-views.csv": None})
    Path(paths[0]).write_text(FILES[name] + row + "\n")
    with pytest.raises(UserError, match=rf"{name}{message}"):
        [*read(paths), *diginetica.listings(diginetica.sort_out(paths))]


def test_files_that_are_none_of_the_sets_or_lack_another_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no views, purchases or queries"):
        diginetica.sort_out(write(tmp_path, "products.csv"))
    with pytest.raises(UserError, match=r"train-clicks\.csv: .*give that too"):
        diginetica.sort_out(write(tmp_path, "train-clicks.csv", "train-item-views.csv"))
    (tmp_path / "other.csv").write_text("a;b\n")
    with pytest.raises(UserError, match=r"other\.csv:1: expected the columns of one of queries \(queryId, "):
        diginetica.sort_out([str(tmp_path / "other.csv")])
