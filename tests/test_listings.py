from __future__ import annotations

import pytest

from models import listings
from models.listings import Listing

KNOWN = (
    Listing(listing_id="a", market="Rio", type="hotel", price=80, latitude=-22.9, longitude=-43.2),
    Listing(listing_id="b", attributes={"pool": True, "stars": 3.0, "near": ("beach", "metro")}),
    Listing(listing_id="c", market="Lisbon", price=0),
)


def test_listings_come_back_as_they_went_into_columns_and_json() -> None:
    made = listings.decode(listings.collect(KNOWN).encode())
    assert [made.get(row) for row in range(len(made))] == list(KNOWN)
    assert made.row == {"a": 0, "b": 1, "c": 2}
    assert made.markets == ["Lisbon", "Rio"]
    assert made.market_codes.tolist() == [1, listings.NOTHING, 0]
    assert made.place(0) == (-22.9, -43.2)
    assert made.place(1) is None


def test_a_markets_prices_fall_into_ranges_of_as_many_listings() -> None:
    prices = [50, 10, 20, 30, 40, None, 7]
    markets = ["Rio"] * 6 + ["Lisbon"]
    made = listings.collect(
        Listing(listing_id=str(at), market=market, price=price)
        for at, (market, price) in enumerate(zip(markets, prices, strict=True))
    )
    assert made.ranges == [4, 0, 1, 2, 3, listings.NOTHING, 4]
    assert [made.range_of("Rio", price) for price in (0, 20, 1_000, None)] == [0, 1, 4, listings.NOTHING]
    assert made.range_of("Nowhere", 20) == listings.NOTHING


def test_columns_that_say_nothing_take_no_room() -> None:
    assert listings.collect([Listing(listing_id="a")]).encode() == b'{"listing_id":["a"]}'


def test_an_id_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        listings.collect([KNOWN[0], KNOWN[0]])


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        listings.decode(b'{"listing_id":["a","b"],"price":[1.0]}')


@pytest.mark.parametrize(
    "value",
    [
        b"{",
        b"[]",
        b'{"listing_id":"b"}',
        b'{"listing_id":"a","price":NaN}',
        b'{"listing_id":"a","x":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ],
    ids=["not JSON", "no object", "another id", "NaN", "too deep"],
)
def test_an_announcement_that_cant_be_read_is_a_value_error(value: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- each says something else
        listings.decode_record(b"a", value)


def test_an_announcement_names_its_listing_and_a_null_withdraws_it() -> None:
    found = listings.decode_record(b"a", b'{"listing_id":"a","price":3}')
    assert found == ("a", Listing(listing_id="a", price=3.0))
    assert listings.decode_record(b"a", None) == ("a", None)
