from __future__ import annotations

from pathlib import Path

import pytest

from models.datasets import retailrocket
from models.errors import UserError
from models.events import Booking, Click, Wishlist
from models.listings import Listing

FILES = {
    "events.csv": "timestamp,visitorid,event,itemid,transactionid\n"
    "1433221332117,257597,view,355908,\n1433224214164,992329,addtocart,248676,\n"
    "1433221999827,111016,transaction,318965,15335\n",
    "item_properties_part1.csv": "timestamp,itemid,property,value\n"
    "1441508400000,355908,categoryid,1338\n1441508400000,206783,888,1116713 960601 n277.200\n"
    "1435460400000,355908,categoryid,5\n1431226800000,355908,available,1\n",
    "item_properties_part2.csv": "timestamp,itemid,property,value\n1433041200000,355908,available,0\n"
    "1433041200000,7,available,1\n",
    "category_tree.csv": "categoryid,parentid\n1338,213\n213,\n5,5\n",
}


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return [str(tmp_path / name) for name in reversed(FILES)]


def test_views_carts_and_transactions_are_clicks_wishlists_and_bookings(paths: list[str]) -> None:
    found = list(retailrocket.events(retailrocket.sort_out(paths)))
    assert found == [
        (Click(event_id="000000001", user_id="257597", timestamp=1433221332117, listing_id="355908"), None),
        (
            Wishlist(event_id="000000002", user_id="992329", timestamp=1433224214164, listing_id="248676"),
            None,
        ),
        (Booking(event_id="000000003", user_id="111016", timestamp=1433221999827, listing_id="318965"), None),
    ]


def test_the_newest_snapshot_of_a_property_counts(paths: list[str]) -> None:
    assert list(retailrocket.listings(retailrocket.sort_out(paths))) == [
        Listing(
            listing_id="355908",
            market="1338",
            attributes={"categories": ("1338", "213"), "available": False},
        ),
        Listing(listing_id="7", attributes={"available": True}),
    ]


def test_a_tree_that_is_a_circle_ends(paths: list[str]) -> None:
    tree = next(path for path in paths if path.endswith("category_tree.csv"))
    Path(tree).write_text("categoryid,parentid\n1338,213\n213,1338\n")
    first, _ = retailrocket.listings(retailrocket.sort_out(paths))
    assert first.attributes["categories"] == ("1338", "213")


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        (
            "events.csv",
            "1433221332117,1,look,5,",
            r":5: column `event`: expected view or addtocart or transaction",
        ),
        ("events.csv", "1433221332.1,1,view,5,", r":5: column `timestamp`: expected milliseconds"),
        ("events.csv", "1433221332117,,view,5,", r":5: column `visitorid`"),
        ("item_properties_part2.csv", "x,5,categoryid,5", r":4: column `timestamp`"),
        ("item_properties_part2.csv", "5,5,categoryid,", r":4: column `value`"),
    ],
)
def test_a_wrong_row_is_named_by_file_line_and_column(
    paths: list[str], name: str, row: str, message: str
) -> None:
    path = next(path for path in paths if path.endswith(name))
    Path(path).write_text(FILES[name] + row + "\n")
    files = retailrocket.sort_out(paths)
    with pytest.raises(UserError, match=name + message):
        [*retailrocket.events(files), *retailrocket.listings(files)]


def test_without_events_there_is_nothing_to_import(paths: list[str]) -> None:
    with pytest.raises(UserError, match=r"give events\.csv too"):
        retailrocket.sort_out(paths[:-1])
