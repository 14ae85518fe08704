from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from models.datasets import columns
from models.datasets.seen import Seen
from models.errors import UserError
from models.events import Booking, Click, Event, Wishlist
from models.listings import Listing

HEAD = "when,who,what,item,shop,cost,colour"
ROWS = ("1600000000,ada,view,a,Lisbon,5.5,red", "1600000001,bob,buy,b,Porto,,")
NAMES = ("listing_id=item", "user_id=who", "timestamp=when")
ALL = (*NAMES, "type=what", "market=shop", "price=cost", "attributes.colour=colour")
TYPES = ("view=click", "buy=booking", "scroll=none")


def write(path: Path, *rows: str, head: str = HEAD) -> str:
    path.write_text("\n".join((head, *rows, "")))
    return str(path)


def read(
    *paths: str,
    named: tuple[str, ...] = NAMES,
    meant: tuple[str, ...] = TYPES,
    unit: columns.Unit | None = None,
    skipped: Counter[str] | None = None,
    seen: Seen | None = None,
) -> list[tuple[Event, str | None]]:
    counted: Counter[str] = Counter() if skipped is None else skipped
    fields, kinds = columns.named(named), columns.meant(meant)
    return list(columns.events(paths, fields, kinds, unit, counted, seen or Seen()))


def test_three_columns_make_clicks(tmp_path: Path) -> None:
    assert read(write(tmp_path / "e.csv", *ROWS)) == [
        (Click(event_id="000000001", user_id="ada", timestamp=1600000000000, listing_id="a"), None),
        (Click(event_id="000000002", user_id="bob", timestamp=1600000001000, listing_id="b"), None),
    ]


def test_types_are_what_they_are_said_to_mean(tmp_path: Path) -> None:
    skipped: Counter[str] = Counter()
    path = write(tmp_path / "e.csv", *ROWS, "1600000002,ada,scroll,a,,,", "1600000003,ada,wishlist,a,,,")
    kinds = [type(event) for event, _ in read(path, named=ALL, skipped=skipped)]
    assert kinds == [Click, Booking, Wishlist]
    assert skipped == {"scroll: none of the kinds": 1}
    with pytest.raises(UserError, match=r"e\.csv:3: column `what`: expected .*view, or what --type"):
        read(path, named=ALL, meant=("view=click",))


def test_all_that_an_event_may_say_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", "5,u,l,e-1,s-1,q-1,Rome", head="t,u,l,e,s,q,m")
    named = ("listing_id=l", "user_id=u", "timestamp=t", "event_id=e", "session=s", "search_id=q", "market=m")
    assert read(path, named=named) == [
        (
            Click(
                event_id="e-1", user_id="u", timestamp=5000, listing_id="l", market="Rome", search_id="q-1"
            ),
            "s-1",
        )
    ]


def test_listings_come_along_with_their_newest_price(tmp_path: Path) -> None:
    seen = Seen()
    rows = ("1600000005,ada,view,a,Rome,9,", "1600000002,ada,view,a,Lisbon,7,blue")
    read(write(tmp_path / "e.csv", *ROWS, *rows), named=ALL, seen=seen)
    assert list(seen.described()) == [
        Listing(listing_id="a", market="Lisbon", price=9.0, attributes={"colour": "blue"}),
        Listing(listing_id="b", market="Porto"),
    ]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_the_delimiter_is_told_by_the_first_line(tmp_path: Path, delimiter: str) -> None:
    expected = read(write(tmp_path / "e.csv", *ROWS))
    rows = [row.replace(",", delimiter) for row in ROWS]
    assert read(write(tmp_path / "e.csv", *rows, head=HEAD.replace(",", delimiter))) == expected


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1600000000", 1600000000000),
        ("1600000000.25", 1600000000250),
        ("1600000000250", 1600000000250),
        ("1600000000250.0", 1600000000250),
        ("2020-09-13T12:26:40.250Z", 1600000000250),
        ("2020-09-13 14:26:40.250+02:00", 1600000000250),
        ("2020-09-13", 1599955200000),
    ],
)
def test_the_unit_of_times_is_told_by_the_first_row(tmp_path: Path, text: str, milliseconds: int) -> None:
    [(event, _)] = read(write(tmp_path / "e.csv", f"{text},u,view,a,,,"))
    assert event.timestamp == milliseconds


@pytest.mark.parametrize(
    ("times", "unit", "message"),
    [
        (["soon"], None, ":2: column `when`: expected an ISO date or time"),
        (["1600000000000000"], None, ":2: column `when`: .*not micro- or nanoseconds"),
        (["1600000000", "1600000000250"], None, ":3: column `when`: expected seconds .*--time"),
        (["1600000000250", "2020-09-13"], None, ":3: column `when`: expected a number"),
        (["2020-09-13", "1600000000"], None, ":3: column `when`: expected an ISO date or time"),
        (["1600000000250"], "seconds", ":2: column `when`: expected seconds"),
    ],
)
def test_a_time_of_another_unit_is_refused(
    tmp_path: Path, times: list[str], unit: columns.Unit | None, message: str
) -> None:
    path = write(tmp_path / "e.csv", *(f"{time},u,view,a,,," for time in times))
    with pytest.raises(UserError, match=rf"e\.csv{message}"):
        read(path, unit=unit)


def test_a_unit_that_is_named_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", "5000,u,view,a,,,")
    for unit, milliseconds in (("seconds", 5_000_000), ("milliseconds", 5_000)):
        [(event, _)] = read(path, unit=unit)  # type: ignore[arg-type]
        assert event.timestamp == milliseconds


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1600000000,,view,a,,,", ":3: column `who`: expected 1 to 256"),
        ("1600000000,__u,view,a,,,", ":3: column `who`: expected an id that does not begin"),
        ("1600000000,u,view,\x07,,,", ":3: column `item`: expected an id .*control"),
        ("1600000000,u,view, ,,,", ":3: column `item`: expected an id that is not blank"),
        ("1600000000,u,view,a,,cheap,", ":3: column `cost`: expected a number"),
        ("1600000000,u,view", ":3: expected 7 fields"),
    ],
)
def test_a_wrong_row_is_named_by_file_line_and_column(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path / "e.csv", ROWS[0], row)
    with pytest.raises(UserError, match=rf"e\.csv{message}"):
        read(path, named=ALL)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (("listing_id=item", "user_id=who"), "name the column of `timestamp`"),
        ((*NAMES, "color=x"), r"--column color=x: expected FIELD=COLUMN, the field one of listing_id, "),
        ((*NAMES, "attributes.=x"), "expected FIELD=COLUMN"),
        ((*NAMES, "price"), "expected FIELD=COLUMN"),
        ((*NAMES, "user_id=item"), "`user_id` is `who` already"),
        ((*NAMES, "price=euros"), r"e\.csv:1: no column `euros`"),
    ],
)
def test_columns_that_are_not_named_right_are_refused(
    tmp_path: Path, named: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / "e.csv", *ROWS), named=named)


def test_a_kind_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="--type view=look: expected VALUE=KIND, the kind one of click"):
        columns.meant(["view=look"])


TABLE: dict[str, Any] = {
    "item": [7.0, 8.0],
    "who": [1, 2],
    "when": [datetime(2020, 9, 13, 12, 26, 40, 250_000, UTC), datetime(2020, 9, 14, tzinfo=UTC)],
    "shop": ["Rome", None],
}


def test_parquet_gives_the_same_with_its_own_times_and_nulls(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    parquet.write_table(pa.table(TABLE), path)
    assert read(str(path), named=(*NAMES, "market=shop")) == [
        (
            Click(event_id="000000001", user_id="1", timestamp=1600000000250, listing_id="7", market="Rome"),
            None,
        ),
        (Click(event_id="000000002", user_id="2", timestamp=1600041600000, listing_id="8"), None),
    ]
    with pytest.raises(UserError, match=r"e\.parquet:1: no column `cost`"):
        read(str(path), named=(*NAMES, "price=cost"))
    parquet.write_table(pa.table(TABLE | {"who": [1, None]}), path)
    with pytest.raises(UserError, match=r"e\.parquet:2: column `who`: expected 1 to 256"):
        read(str(path))
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"e\.parquet:1: parquet that can't be read") as raised:
        read(str(path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("named", [None, "seconds", "milliseconds", "iso"])
@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.timestamp("ns", "Europe/Rome"), pa.date32()])
def test_the_type_of_a_parquet_column_of_times_tells_their_unit(
    tmp_path: Path, kind: pa.DataType, named: columns.Unit | None
) -> None:
    path = tmp_path / "e.parquet"
    days = [
        datetime(1970, 1, 2, tzinfo=UTC),
        datetime(1972, 12, 31, tzinfo=UTC),
        datetime(2020, 9, 14, tzinfo=UTC),
    ]
    times = pa.array(days, pa.timestamp("s", "UTC")).cast(kind)
    parquet.write_table(pa.table({"item": [7, 8, 9], "who": [1, 2, 3], "when": times}), path)
    found = [event.timestamp for event, _ in read(str(path), unit=named)]
    assert found == [int(day.timestamp() * 1000) for day in days]


def test_parquet_without_pyarrow_says_what_to_install_and_csv_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "e.parquet"
    parquet.write_table(pa.table(TABLE), path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        UserError, match=r"e\.parquet: parquet needs pyarrow: pip install 'insession\[train\]'"
    ):
        read(str(path))
    assert len(read(write(tmp_path / "e.csv", *ROWS))) == 2
