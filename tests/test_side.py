from __future__ import annotations

import numpy as np

from models import listings
from models.listings import Listing
from models.training import side

KNOWN = [
    Listing(listing_id="a", market="Rio", type="flat", price=10, attributes={"extras": ("pool", "bar"), "stars": 5.0}),
    Listing(listing_id="b", market="Rio", type="flat", price=90, attributes={"extras": ("pool",), "stars": 1.0}),
    Listing(listing_id="c", market="Rio", type="house", attributes={"extras": ("bar", "sea"), "new": True}),
    Listing(listing_id="d", market="Rio", type="house", attributes={"new": True, "title": "A house"}),
]  # fmt: skip


def test_what_listings_share_has_a_code_and_what_all_or_one_have_has_none() -> None:
    found = side.known(listings.collect(KNOWN), side.FIELDS, "eges")
    assert found.fields == ["type", "attributes.extras", "attributes.new"]
    assert found.values == [
        *("type=flat", "type=house"),
        *("attributes.extras=bar", "attributes.extras=pool"),
        "attributes.new=True",
    ]
    assert found.columns.tolist() == [0, 1, 1, 2]
    assert found.codes.tolist() == [[0, 2, 3, -1], [0, 3, -1, -1], [1, 2, -1, 4], [1, -1, -1, 4]]
    assert found.counts(np.array([1, 10, 100, 1000])).tolist() == [11, 1100, 101, 11, 1100]


def test_fields_are_chosen_by_name() -> None:
    found = side.known(listings.collect(KNOWN), " attributes.new ,type", "eges")
    assert found.fields == ["attributes.new", "type"]


def test_numbers_and_prices_fall_into_ranges() -> None:
    many = [
        Listing(listing_id=f"{row:02}", price=row + 1, attributes={"metres": float(row)}) for row in range(20)
    ]
    found = side.known(listings.collect(many), "price,attributes.metres", "eges")
    assert found.codes[:, 0].tolist() == [row // 4 for row in range(20)]
    assert found.values[5:] == [f"attributes.metres=range {at}" for at in range(5)]


def test_one_thing_that_is_known_is_drawn_for_each() -> None:
    found = side.known(listings.collect(KNOWN), side.FIELDS, "eges")
    drawn = found.drawn(np.repeat(np.arange(4), 3000), np.random.default_rng(0)).reshape(4, -1)
    for row, codes in enumerate(found.codes):
        there = codes[codes >= 0]
        shares = np.bincount(drawn[row], minlength=5)[there] / 3000
        np.testing.assert_allclose(shares, 1 / len(there), atol=0.04)
    nothing = side.Side([], ["x"], np.full((1, 2), -1, np.int32), np.zeros(2, np.int64))
    assert nothing.drawn(np.array([0]), np.random.default_rng(0)).tolist() == [-1]
