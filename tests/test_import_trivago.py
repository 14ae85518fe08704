from __future__ import annotations

import gzip
import os
from collections import Counter
from pathlib import Path

import pytest

from models.datasets import trivago
from models.datasets.seen import Seen
from models.errors import UserError
from models.events import Click, Event, Result, Search

COLUMNS = "user_id,session_id,timestamp,step,action_type,reference,platform,city,device,current_filters,impressions,prices"
ROWS = (
    'u1,s1,1541030400,1,search for item,31,BR,"Rio, Brazil",mobile,,,',
    'u1,s1,1541030401,2,filter selection,Spa,BR,"Rio, Brazil",mobile,Spa,,',
    'u1,s1,1541030402,3,interaction item image,32,BR,"Rio, Brazil",mobile,,,',
    'u1,s1,1541030403,4,clickout item,33,BR,"Rio, Brazil",mobile,,31|33|32,90||75.5',
    "u2,s2,1541030404,1,clickout item,,BR,,mobile,,34|33,10|20",
)


def write(path: Path, *rows: str, columns: str = COLUMNS) -> str:
    path.write_text("\n".join([columns, *rows, ""]))
    return str(path)


def read(*paths: str) -> list[Event]:
    return [event for event, _ in trivago.events(paths, Counter())]


def test_a_clickout_is_a_search_with_its_list_and_then_a_click_in_it(tmp_path: Path) -> None:
    search, click = read(write(tmp_path / "a.csv", ROWS[3]))
    assert search == Search(
        event_id="000000001a",
        search_id="000000001a",
        user_id="u1",
        timestamp=1541030403000,
        market="Rio, Brazil",
        results=(
            Result(listing_id="31", position=1, price=90),
            Result(listing_id="33", position=2),
            Result(listing_id="32", position=3, price=75.5),
        ),
    )
    assert click == Click(
        event_id="000000001b",
        user_id="u1",
        timestamp=1541030403000,
        listing_id="33",
        search_id="000000001a",
        market="Rio, Brazil",
    )
    assert (search.timestamp, search.event_id) < (click.timestamp, click.event_id)


def test_other_actions_on_an_item_are_clicks_without_a_search(tmp_path: Path) -> None:
    events = read(write(tmp_path / "a.csv", ROWS[0], ROWS[2]))
    assert [type(event) for event in events] == [Click, Click]
    assert [(event.listing_id, event.search_id) for event in events if isinstance(event, Click)] == [
        ("31", None),
        ("32", None),
    ]


def test_a_hidden_reference_leaves_the_search_alone(tmp_path: Path) -> None:
    skipped: Counter[str] = Counter()
    (search,) = [event for event, _ in trivago.events([write(tmp_path / "a.csv", ROWS[4])], skipped)]
    assert isinstance(search, Search)
    assert search.market is None
    assert skipped == {"clickout item: no item in its reference": 1}


def test_what_is_no_event_is_counted_by_reason(tmp_path: Path) -> None:
    skipped: Counter[str] = Counter()
    path = write(
        tmp_path / "a.csv",
        ROWS[1],
        ROWS[1],
        "u,s,1541030401,1,change of sort order,price,BR,,,,,",
        "u,s,1541030401,2,interaction item info,unknown,BR,,,,,",
    )
    assert list(trivago.events([path], skipped)) == []
    assert skipped == {
        "filter selection: not about an item": 2,
        "change of sort order: not about an item": 1,
        "interaction item info: no item in its reference": 1,
    }


def test_the_sources_sessions_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", *ROWS)
    assert [session for _, session in trivago.events([path], Counter())] == ["s1", "s1", "s1", "s1", "s2"]


def test_a_clickout_without_a_list_is_a_click(tmp_path: Path) -> None:
    (click,) = read(write(tmp_path / "a.csv", "u,s,1541030401,1,clickout item,31,BR,,,,,"))
    assert isinstance(click, Click)
    assert click.search_id is None


@pytest.mark.parametrize("columns", [COLUMNS, COLUMNS.removesuffix(",prices")])
def test_prices_may_be_empty_or_absent(tmp_path: Path, columns: str) -> None:
    row = "u,s,1541030401,1,clickout item,31,BR,,,,31|32" + "," * columns.endswith("prices")
    search = read(write(tmp_path / "a.csv", row, columns=columns))[0]
    assert isinstance(search, Search)
    assert [result.price for result in search.results] == [None, None]


def test_columns_may_stand_in_any_order_and_others_beside_them(tmp_path: Path) -> None:
    columns = "extra,reference,impressions,city,user_id,action_type,timestamp,session_id"
    path = write(tmp_path / "a.csv", "x,31,31|32,Rio,u,clickout item,1541030401,s", columns=columns)
    search, click = read(path)
    assert (click.timestamp, isinstance(search, Search)) == (1541030401000, True)


def test_gzip_is_told_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    plain = read(write(path, *ROWS))
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert read(str(path)) == plain


def test_event_ids_are_unique_over_files_and_sort_in_their_order(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.csv", *ROWS), write(tmp_path / "b.csv", *ROWS)
    ids = [event.event_id for event in read(first, second)]
    assert ids == sorted(set(ids))


def test_listings_have_their_properties_market_and_newest_price(tmp_path: Path) -> None:
    seen = Seen()
    path = write(
        tmp_path / "a.csv",
        "u,s,1541030401,1,clickout item,31,BR,Rio,,,31|32,90|80",
        "u,s,1541030402,2,clickout item,31,BR,Rio,,,31,95",
        "v,t,1541030300,1,clickout item,31,BR,Rio,,,31,70",
        "u,s,1541030403,3,interaction item info,31,BR,Elsewhere,,,,",
    )
    list(trivago.events([path], Counter(), seen))
    metadata = write(tmp_path / "m.csv", "31,WiFi|Hotel|3 Star", "40,", columns="item_id,properties")
    listings = {
        listing.listing_id: listing for listing in trivago.listings(seen, trivago.properties(metadata))
    }
    assert list(listings) == ["31", "32", "40"]
    assert (listings["31"].market, listings["31"].type, listings["31"].price) == ("Rio", "Hotel", 95)
    assert listings["31"].attributes == {"properties": ("WiFi", "Hotel", "3 Star")}
    assert (listings["32"].market, listings["32"].price, listings["32"].attributes) == ("Rio", 80, {})
    assert (listings["40"].market, listings["40"].type) == (None, None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "u,s,yesterday,1,clickout item,31,BR,,,,31,",
            "column `timestamp`: expected a number, found 'yesterday'",
        ),
        ("u,s,1541030401000,1,clickout item,31,BR,,,,31,", "column `timestamp`: expected seconds since 1970"),
        ("u,s,-5,1,clickout item,31,BR,,,,31,", "column `timestamp`"),
        ("u,s,nan,1,clickout item,31,BR,,,,31,", "column `timestamp`"),
        (",s,1541030401,1,clickout item,31,BR,,,,31,", "column `user_id`: expected 1 to 256 characters"),
        (
            "__u,s,1541030401,1,clickout item,31,BR,,,,31,",
            "column `user_id`: expected an id that does not begin",
        ),
        (f"{'u' * 257},s,1541030401,1,clickout item,31,BR,,,,31,", "column `user_id`"),
        ("u,,1541030401,1,clickout item,31,BR,,,,31,", "column `session_id`"),
        ("u,s,1541030401,1,clickout item,31,BR,,,,31||32,", "column `impressions`"),
        ("u,s,1541030401,1,clickout item,31,BR,,,,31|32,5", "column `prices`: expected 2 prices"),
        (
            "u,s,1541030401,1,clickout item,31,BR,,,,31|32,5|x",
            "column `prices`: expected a number, found 'x'",
        ),
        ("u,s,1541030401,1,clickout item,31,BR,,,,31|32,5|-1", "column `prices`: expected a price"),
        ("u,s,1541030401,1,clickout item,31", "expected 12 fields, as in the first line, found 6"),
        ('u,s,1541030401,1,clickout item,31,BR,"Rio', "unexpected end of data"),
    ],
)
def test_a_wrong_row_is_named_by_file_line_and_column(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path / "bad.csv", ROWS[0], row)
    with pytest.raises(UserError, match=rf"bad\.csv:3: {message}|bad\.csv:3: .*{message}") as raised:
        read(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "bad.csv: an empty file; expected the columns user_id, session_id"),
        (b"user_id,session_id\nu,s\n", "bad.csv:1: no column `timestamp`: expected the columns user_id"),
        (b"\x00\xff\xfe\x80" * 50, "bad.csv:1: "),
        (f"{COLUMNS}\n{ROWS[0]}\n".encode() + b"\xff\xfe\n", "bad.csv:3: expected text in UTF-8"),
        (b"x" * (1 << 21), "bad.csv:1: .*longer than a megabyte"),
        (b"\x1f\x8b\x08\x00 not gzip", "bad.csv:1: "),
        (gzip.compress(f"{COLUMNS}\n{ROWS[0]}\n".encode())[:-12], "bad.csv:.*truncated"),
        (b"PK\x03\x04 not zip", "bad.csv:1: a damaged compressed file"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        read(str(path))
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.csv: No such file"):
        read(str(tmp_path / "absent.csv"))


@pytest.mark.data
def test_the_rio_searches_are_read_whole() -> None:
    if "INSESSION_DATA" not in os.environ:
        pytest.skip("INSESSION_DATA is not set")
    seen, skipped = Seen(), Counter[str]()
    folder = Path(os.environ["INSESSION_DATA"]) / "trivago_rio"
    events = [event for event, _ in trivago.events([str(folder / "train.csv.gz")], skipped, seen)]
    kinds = Counter(type(event) for event in events)
    assert kinds == {Click: 7_218, Search: 5_435}
    assert not skipped
    properties = trivago.properties(str(folder / "item_metadata.csv"))
    listings = list(trivago.listings(seen, properties))
    seen_ids = {item for item, _ in seen.markets}
    assert {listing.market for listing in listings if listing.listing_id in seen_ids} == {
        "Rio de Janeiro, Brazil"
    }
    assert sum(bool(listing.attributes) for listing in listings) == len(properties)
