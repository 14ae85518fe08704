"""A listing nobody has clicked gets the mean of its neighbours' vectors (Airbnb, KDD 2018, section 3.4)."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from models import bundle, listings, ranker
from models.bundle import Bundle, Training
from models.listings import Listing
from tests.made import a_bundle, act, unit, visit

MILE = 1 / 69.09
"""In degrees of latitude."""


def near(
    name: str,
    miles: float,
    *,
    type: str = "Room",
    price: float | None = 100,
    market: str = "Lisbon",
    place: bool = True,
) -> Listing:
    latitude = 38.7 + miles * MILE if place else None
    return Listing(
        listing_id=name,
        market=market,
        type=type,
        price=price,
        latitude=latitude,
        longitude=-9.1 if place else None,
    )


def made(*known: Listing, without: int = 0) -> Bundle:
    """A bundle of these listings; the last `without` have no vector."""
    vectors = unit(len(known), 8)
    vectors[len(known) - without :] = 0
    return bundle.assemble(
        listings=listings.collect(known),
        vectors=vectors,
        ranker=ranker.default(),
        training=Training(source="embeddings", data="made"),
    )


def mean(of: Bundle, *rows: int) -> np.ndarray:
    total = of.vectors[list(rows)].mean(axis=0)
    return total / np.linalg.norm(total)


def test_the_mean_of_the_nearest_three() -> None:
    known = made(near("a", 1), near("b", 2), near("c", 3), near("d", 4))
    assert known.announce("new", near("new", 0))
    np.testing.assert_allclose(known.vectors[known.row["new"]], mean(known, 0, 1, 2), atol=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        near("b", 0.1, type="House"),
        near("b", 0.1, price=900),
        near("b", 0.1, price=None),
        near("b", 0.1, market="Porto"),
        near("b", 10.1),
        near("b", 0.1, place=False),
    ],
    ids=["type", "price", "no price", "market", "too far", "no place"],
)
def test_only_what_is_like_it_and_near_is_a_neighbour(other: Listing) -> None:
    far = [near(f"x{at}", 500, price=price) for at, price in enumerate((50, 300, 600, 900))]
    known = made(near("a", 1), other, *far)
    known.announce("new", near("new", 0))
    np.testing.assert_allclose(known.vectors[known.row["new"]], known.vectors[0], atol=1e-6)


def test_a_neighbour_just_within_ten_miles_counts() -> None:
    known = made(near("a", 9.9))
    assert known.announce("new", near("new", 0))


def test_without_neighbours_or_a_place_it_stays_unknown() -> None:
    known = made(near("a", 1))
    assert not known.announce("new", near("new", 0, place=False))
    assert not known.announce("new", near("new", 0, market="Porto"))
    assert "new" not in known.row


def test_a_listing_with_a_vector_keeps_it_and_one_without_gets_one() -> None:
    known = made(near("a", 1), near("b", 2), near("bare", 0), without=1)
    before = known.vectors[0].copy()
    assert not known.announce("a", near("a", 0))
    np.testing.assert_array_equal(known.vectors[known.row["a"]], before)
    assert known.announce("bare", near("bare", 0))
    np.testing.assert_allclose(known.vectors[known.row["bare"]], mean(known, 0, 1), atol=1e-6)
    assert known.announce("bare", None)
    assert known.row["bare"] == 2


def test_the_order_of_announcements_changes_nothing() -> None:
    new = [near(f"n{at}", at / 10) for at in range(5)]
    one, other = (made(near("a", 1), near("b", 2)) for _ in range(2))
    for listing in new:
        one.announce(listing.listing_id, listing)
    for listing in reversed(new):
        other.announce(listing.listing_id, listing)
    for listing in new:
        name = listing.listing_id
        np.testing.assert_array_equal(one.vectors[one.row[name]], other.vectors[other.row[name]])


def test_an_announced_listing_is_encoded_retrieved_changed_and_withdrawn() -> None:
    known = made(near("a", 1), near("b", 2, type="House"), near("c", 3, market="Porto"))
    assert known.encode(visit(act(0, "new"))) is None
    assert known.announce("new", near("new", 0))
    vector = known.encode(visit(act(0, "new")))
    assert vector == pytest.approx(known.encode(visit(act(0, "a"))), abs=2e-6)
    row = known.row["new"]
    assert known.space.ids[row] == "new"
    assert sorted(known.nearest(known.vectors[0], 2)[0].tolist()) == [0, row]
    assert known.nearest(known.vectors[0], 2, exclude={0})[0][0] == row
    assert row not in known.nearest(known.vectors[0], 3, market="Porto")[0]

    assert not known.announce("new", near("new", 0))
    assert known.announce("new", near("new", 0, type="House"))
    assert known.encode(visit(act(0, "new"))) == pytest.approx(known.encode(visit(act(0, "b"))), abs=2e-6)
    assert known.announce("new", None)
    assert known.encode(visit(act(0, "new"))) is None
    assert row not in known.nearest(known.vectors[1], 3)[0]


def test_many_announcements_leave_what_was_there() -> None:
    known = made(near("a", 1), near("b", 2))
    before = known.vectors.copy()
    for at in range(3_000):
        known.announce(f"n{at}", near(f"n{at}", 0))
    np.testing.assert_array_equal(known.vectors[:2], before)
    assert len(known.vectors) == 3_002
    assert known.space.ids[-1] == "n2999"


def test_announced_listings_are_found_exactly_beside_the_index() -> None:
    rng = np.random.default_rng(2)
    markets = ["Lisbon", "Porto", "Faro", None]  # nothing of Faro is in the bundle
    known = a_bundle(300, 16, markets=[markets[at % 2] for at in range(300)])
    market = {f"l{at}": markets[at % 2] for at in range(300)}
    vectors = unit(3_000, 16, seed=9)
    known.cold_start.vector = lambda listing: vectors[int(listing.listing_id[1:])]  # type: ignore[method-assign]
    for at in rng.permutation(3_000).tolist():
        market[f"n{at}"] = markets[at % 4]
        known.announce(f"n{at}", Listing(listing_id=f"n{at}", market=market[f"n{at}"]))
    for at in range(0, 3_000, 7):
        known.announce(f"n{at}", None)
        del market[f"n{at}"]
    for at in range(0, 3_000, 21):
        market[f"n{at}"] = "Porto"
        known.announce(f"n{at}", Listing(listing_id=f"n{at}", market="Porto"))
    assert len(known.announced) == len(market) - 300
    for query in unit(10, 16, seed=10):
        for within in (None, "Lisbon", "Porto", "Faro", "nowhere"):
            own = [known.row[name] for name, of in market.items() if within in (None, of)]
            own.sort(key=lambda row: -float(known.vectors[row] @ query))
            for exclude in (frozenset(), frozenset(own[:5] + own[-3:])):
                rows, similarities = known.nearest(query, 25, market=within, exclude=exclude)
                assert rows.tolist() == [row for row in own if row not in exclude][:25]
                np.testing.assert_allclose(similarities, known.vectors[rows] @ query, atol=1e-6)


def test_listings_are_announced_while_others_ask() -> None:
    known = made(*(near(f"l{at}", at / 100) for at in range(100)))
    failed: list[BaseException] = []
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                rows, _ = known.nearest(known.vectors[3], 50, market="Lisbon")
                assert len(set(rows.tolist())) == 50
        except BaseException as error:
            failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    for at in range(3_000):
        known.announce(f"n{at}", near(f"n{at}", 0.5))
        if at % 3 == 0:
            known.announce(f"n{at}", None)
    done.set()
    asking.join()
    assert not failed
    assert len(known.announced) == 2_000
