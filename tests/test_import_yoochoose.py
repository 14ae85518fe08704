from __future__ import annotations

from pathlib import Path

import pytest

from models.datasets import yoochoose
from models.datasets.seen import Seen
from models.errors import UserError
from models.events import Booking, Click
from models.listings import Listing

CLICKS = """1,2014-04-07T10:51:09.277Z,214536502,0
1,2014-04-07T10:54:09.868Z,214536500,S
2,2014-04-07T13:56:37.614Z,214662742,5
2,2014-04-07T13:57:19.373Z,214662742,5
2,2014-04-07T13:58:37.446Z,214662742,2
2,2014-04-07T13:59:50.710Z,214536500,2089116550
"""
BUYS = """2,2014-04-07T14:04:23.108Z,214662742,1046,1
1,2014-04-07T14:05:23.108Z,214536500,0,2
"""


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "yoochoose-clicks.dat").write_text(CLICKS)
    (tmp_path / "yoochoose-buys.dat").write_text(BUYS)
    return [str(tmp_path / "yoochoose-clicks.dat"), str(tmp_path / "yoochoose-buys.dat")]


def test_clicks_and_buys_are_told_by_their_number_of_columns(files: list[str]) -> None:
    found = list(yoochoose.events(files, Seen()))
    assert found[0] == (
        Click(event_id="000000001", user_id="1", timestamp=1396867869277, listing_id="214536502"),
        "1",
    )
    assert found[2][0] == Click(
        event_id="000000003", user_id="2", timestamp=1396878997614, listing_id="214662742"
    )
    assert [type(event) for event, _ in found] == [Click] * 6 + [Booking] * 2
    assert found[6] == (
        Booking(event_id="000000007", user_id="2", timestamp=1396879463108, listing_id="214662742"),
        "2",
    )


def test_listings_have_the_commonest_category_the_brand_and_a_price_that_is_not_zero(
    files: list[str],
) -> None:
    seen = Seen()
    list(yoochoose.events(files, seen))
    assert list(seen.described()) == [
        Listing(listing_id="214536500", attributes={"special_offer": True, "brand": "2089116550"}),
        Listing(listing_id="214536502"),
        Listing(listing_id="214662742", market="5", price=1046.0),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"bad.dat:1: expected, without a header, Session ID, .*found nothing"),
        ("Session ID,Timestamp,Item ID,Category\n", r"bad.dat:1: expected, without a header"),
        ("1,1396867869,214536502,0\n", r"bad.dat:1: expected, without a header"),
        (CLICKS + "2,2014-04-07T13:59:50.710Z,1\n", r"bad.dat:7: expected 4 fields, .*found 3"),
        (CLICKS + "2,yesterday,1,0\n", r"bad.dat:7: column `Timestamp`: expected an ISO date or time"),
        (
            CLICKS + "2,1914-04-07T13:59:50.710Z,1,0\n",
            r"bad.dat:7: column `Timestamp`: expected a time since",
        ),
        (CLICKS + "2,2014-04-07T13:59:50.710Z,,0\n", r"bad.dat:7: column `Item ID`"),
        (CLICKS + "2,2014-04-07T13:59:50.710Z,1,shoes\n", r"bad.dat:7: column `Category`: expected `S`"),
        (BUYS + "2,2014-04-07T13:59:50.710Z,1,-5,1\n", r"bad.dat:3: column `Price`: expected a price"),
    ],
)
def test_a_wrong_file_is_named_by_file_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.dat").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        list(yoochoose.events([str(tmp_path / "bad.dat")], Seen()))
    assert "\n" not in str(raised.value)
