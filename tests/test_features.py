from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import _kernel, features
from models.features import (
    CALLER_SCORE,
    CLICKED,
    DISTANCE,
    FEATURES,
    FREQUENCY,
    NAMES,
    POSITION,
    PRICE,
    RECENCY,
    RECENCY_OUTSIDE,
    SIMILARITY,
    USER_TYPE,
)
from models.history import Deed, Done, History, Visit
from models.listings import Listing, collect
from models.profile import profile
from models.sessions import Kept, State, UserEmbedding
from models.space import Space, log_price
from models.types import NONE, Saved, Types, user_type
from models.visitor import Visitor
from tests.made import MINUTE, START, act, past, show, unit, visit

SIZE = 6
VECTORS = unit(SIZE, 4)
MARKETS = ["rome", "rome", "rome", "oslo", "oslo", None]
PRICES = [10.0, 20.0, 40.0, None, 80.0, 100.0]
LISTINGS = collect(
    Listing(listing_id=f"l{row}", market=MARKETS[row], price=PRICES[row]) for row in range(SIZE)
)
NO_SIMILARITY, NO_DISTANCE, NO_PRICE = (FEATURES[at].low for at in (SIMILARITY, DISTANCE, PRICE))


HISTORIES: dict[Deed, int] = {
    "click": CLICKED,
    "long-click": NAMES.index("long_clicked"),
    "skip": NAMES.index("skipped"),
    "wishlist": NAMES.index("wishlisted"),
    "inquiry": NAMES.index("inquired"),
    "booking": NAMES.index("booked"),
}


def space(vectors: np.ndarray = VECTORS, types: Types = NONE) -> Space:
    prices = np.array([log_price(price) for price in PRICES], np.float32)
    return Space(LISTINGS.row, vectors, prices, types.of(LISTINGS), MARKETS)


def visitor(
    *events: Kept, history: History | None = None, vector: tuple[float, ...] | None = None
) -> Visitor:
    sessions = (visit(*events),) if events else ()
    last = sessions[0].last if sessions else START
    embedding = UserEmbedding(
        user_id="u",
        vector=vector,
        bundle="",
        as_of=last,
        partition=0,
        offset=0,
        state=State(sessions=sessions, last=last),
    )
    return Visitor.of(embedding, history)


def compute(*events: Kept, rows: list[int] | None = None, **given: object) -> features.Floats:
    """The features, a row a candidate."""
    at = np.array(list(range(SIZE)) if rows is None else rows)
    nothing = np.full(len(at), np.nan)
    given = {
        "vector": None,
        "positions": np.arange(1, len(at) + 1),
        "scores": nothing,
        "prices": nothing,
        "history": None,
        "space": space(),
        "types": NONE,
        "similar": True,
    } | given
    seen = profile(
        visitor(*events, history=given["history"], vector=given["vector"]),  # type: ignore[arg-type]
        START + MINUTE,
        space=given["space"],  # type: ignore[arg-type]
        types=given["types"],  # type: ignore[arg-type]
        listings=LISTINGS,
        own=True,
        similar=given["similar"],  # type: ignore[arg-type]
    )
    arrays = (np.asarray(given[name], np.float64) for name in ("scores", "prices"))
    return features.compute(seen, given["space"], at, given["positions"], *arrays).T  # type: ignore[arg-type]


def test_the_kernel_has_the_same_columns() -> None:
    assert NAMES == _kernel.NAMES


def test_a_matrix_has_a_row_a_candidate_and_a_column_a_feature() -> None:
    matrix = compute(act(0, "l1"))
    assert matrix.shape == (SIZE, len(FEATURES))
    assert matrix.dtype == np.float32
    assert matrix[:, POSITION].tolist() == pytest.approx(np.log2([1, 2, 3, 4, 5, 6]))


def test_similarity_is_the_dot_product_and_unknown_without_a_vector_on_either_side() -> None:
    vectors = VECTORS.copy()
    vectors[2] = 0
    matrix = compute(act(0, "l1"), vector=tuple(VECTORS[1].tolist()), space=space(vectors))
    expected = vectors @ VECTORS[1]
    expected[2] = NO_SIMILARITY
    np.testing.assert_allclose(matrix[:, SIMILARITY], expected, atol=1e-6)
    assert (compute(act(0, "l1"))[:, SIMILARITY] == np.float32(NO_SIMILARITY)).all()


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*HISTORIES, "rejection"]),
            st.sampled_from([*LISTINGS.ids, "x"]),
            st.sampled_from([None, "rome", "oslo"]),
        ),
        max_size=12,
    )
)
def test_histories_are_the_greatest_similarity_to_a_markets_centroid(
    entries: list[tuple[Deed, str, str | None]],
) -> None:
    matrix = compute(history=past(*entries))
    for kind, column in HISTORIES.items():
        by_market: dict[str | None, list[np.ndarray]] = {}
        for entry, listing, market in entries:
            if entry == kind and listing != "x":
                row = LISTINGS.row[listing]
                by_market.setdefault(market or MARKETS[row], []).append(VECTORS[row].astype(np.float64))
        if not by_market:
            assert (matrix[:, column] == np.float32(NO_SIMILARITY)).all()
            continue
        for row in range(SIZE):
            best = max(
                float(VECTORS[row] @ np.sum(group, axis=0)) / float(np.linalg.norm(np.sum(group, axis=0)))
                for group in by_market.values()
            )
            assert matrix[row, column] == pytest.approx(best, abs=1e-5)


def test_a_history_holds_this_visit_too_and_each_session_once() -> None:
    now = compute(act(0, "l1"))
    np.testing.assert_allclose(now[:, CLICKED], VECTORS @ VECTORS[1], atol=1e-6)
    named = History(
        user_id="u", visits=(Visit(START, START, (Done("click", "l1", START), Done("click", "l2", START))),)
    )
    both = compute(act(0, "l1"), history=named)
    centroid = VECTORS[1].astype(np.float64) + VECTORS[2]
    np.testing.assert_allclose(both[:, CLICKED], VECTORS @ centroid / np.linalg.norm(centroid), atol=1e-6)


def test_what_ended_more_than_two_weeks_before_is_no_history() -> None:
    old = past(("click", "l1", None), before=14 * 24 * 60)
    assert (compute(history=old)[:, CLICKED] == np.float32(NO_SIMILARITY)).all()


def test_the_last_long_click_is_the_newest_in_time() -> None:
    matrix = compute(
        act(0, "l3"),
        act(30, "l4"),
        history=past(("long-click", "l1", None), ("click", "l5", None), ("long-click", "l2", None)),
    )
    np.testing.assert_allclose(matrix[:, NAMES.index("last_long_click")], VECTORS @ VECTORS[2], atol=1e-6)


def test_a_user_type_is_compared_with_the_listings_types() -> None:
    known = Types(
        Saved(users={"0/0/0": [1.0, 0.0]}, listings={"/0": [1.0, 0.0], "/2": [0.6, 0.8]}),
    )
    assert LISTINGS.ranges[:3] == [0, 2, 4]
    matrix = compute(act(0, "l0"), types=known, space=space(types=known))
    assert matrix[:3, USER_TYPE].tolist() == pytest.approx([1.0, 0.6, NO_SIMILARITY])
    others = compute(act(0, "l1"), types=known, space=space(types=known))
    assert (others[:, USER_TYPE] == np.float32(NO_SIMILARITY)).all()


@given(st.integers(1, 20), st.integers(0, 9), st.data(), st.booleans())
def test_a_user_type_is_how_often_what_prices_and_whether_booked(
    actions: int, priced: int, data: st.DataObject, booked: bool
) -> None:
    ranges = data.draw(st.lists(st.integers(0, 4), min_size=priced, max_size=priced))
    often = "0" if actions < 3 else "1" if actions < 10 else "2"
    mean = round(sum(ranges) / priced) if priced else -1
    assert user_type(actions, sum(ranges), priced, booked) == f"{often}/{mean}/{int(booked)}"


def test_left_out_similarities_are_unknown_and_all_else_stays() -> None:
    whole = compute(act(0, "l1"), vector=tuple(VECTORS[1].tolist()))
    without = compute(act(0, "l1"), vector=tuple(VECTORS[1].tolist()), similar=False)
    vectors = slice(SIMILARITY, USER_TYPE + 1)
    assert (without[:, vectors] == np.float32(NO_SIMILARITY)).all()
    whole[:, vectors] = NO_SIMILARITY
    np.testing.assert_array_equal(without, whole)


def test_recency_counts_the_other_listings_since_and_frequency_all_actions() -> None:
    matrix = compute(
        *(act(at, name, search_id="s") for at, name in enumerate(["l1", "l2", "l1", "l3", "unknown", "l3"]))
    )
    assert matrix[:, RECENCY].tolist() == [0, 2, 3, 1, 0, 0]
    assert matrix[:, FREQUENCY].tolist() == [0, 2, 1, 2, 0, 0]
    assert not matrix[:, RECENCY_OUTSIDE].any()


def test_recency_stands_outside_where_the_newest_action_was_not_in_a_search() -> None:
    matrix = compute(act(0, "l1", search_id="s"), act(1, "l2"))
    assert matrix[:, RECENCY_OUTSIDE].tolist() == [0, 2, 1, 0, 0, 0]
    assert not matrix[:, RECENCY].any()


def test_a_rejection_is_nothing_the_visitor_did() -> None:
    np.testing.assert_array_equal(compute(act(0, "l1"), act(1, "l2", "rejection")), compute(act(0, "l1")))
    assert not compute(act(1, "l2", "rejection"))[:, FREQUENCY].any()


def test_distance_is_from_the_newest_acted_on_in_the_list_where_the_visitor_goes_on() -> None:
    matrix = compute(show(0, "l1", "l3", "l5"), act(1, "l5"), act(2, "l3"), rows=[1, 3, 5, 0])
    assert matrix[:, DISTANCE].tolist() == pytest.approx([-1, 0, 1, np.log2(3)])


def test_distance_is_unknown_where_the_last_search_showed_something_else() -> None:
    for events in ((act(0, "l1"),), (show(0, "l1", "l3", "l5"), act(1, "l1"))):
        matrix = compute(*events, rows=[1, 3, 0])
        assert (matrix[:, DISTANCE] == NO_DISTANCE).all()


def test_the_callers_scores_are_standardised_and_equal_ones_say_nothing() -> None:
    matrix = compute(act(0, "l1"), rows=[0, 1, 2], scores=[10.0, 20.0, 30.0])
    assert matrix[:, CALLER_SCORE].tolist() == pytest.approx([-1.2247, 0, 1.2247], abs=1e-4)
    assert not compute(act(0, "l1"), rows=[0, 1], scores=[5.0, 5.0])[:, CALLER_SCORE].any()
    assert not compute(act(0, "l1"), rows=[0, 1], scores=[5.0, np.nan])[:, CALLER_SCORE].any()


def test_the_callers_scores_may_be_large_but_not_beyond_arithmetic() -> None:
    large = compute(act(0, "l1"), rows=[0, 1], scores=[1e100, 3e100])[:, CALLER_SCORE]
    assert large.tolist() == [-1.0, 1.0]
    assert not compute(act(0, "l1"), rows=[0, 1], scores=[1e308, 1.0])[:, CALLER_SCORE].any()
    assert not compute(act(0, "l1"))[:, CALLER_SCORE].any()


def test_price_is_against_the_geometric_mean_of_the_visits_prices() -> None:
    matrix = compute(act(0, "l0"), act(1, "l2"))
    expected = [-1.0, 0.0, 1.0, NO_PRICE, 2.0, math.log2(5)]
    assert matrix[:, PRICE].tolist() == pytest.approx(expected, abs=1e-5)
    assert (compute(act(0, "l3"))[:, PRICE] == NO_PRICE).all()


def test_the_price_that_the_caller_says_goes_before_the_listings_own() -> None:
    matrix = compute(act(0, "l1"), rows=[1, 2, 3], prices=[5.0, np.nan, 1e9])
    assert matrix[:, PRICE].tolist() == pytest.approx([-2.0, 1.0, 2.75])


def test_long_lists_and_far_positions_stay_finite() -> None:
    rows = [row % 6 for row in range(2_000)]
    matrix = compute(show(0, "l1"), act(1, "l1"), rows=rows, positions=np.arange(1, 2_001) * 500)
    assert np.isfinite(matrix).all()
