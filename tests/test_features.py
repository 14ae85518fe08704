from __future__ import annotations

import numpy as np
import pytest

from models import features
from models.features import (
    CALLER_SCORE,
    DISTANCE,
    FEATURES,
    FREQUENCY,
    NO_DISTANCE,
    NO_SIMILARITY,
    POSITION,
    RECENCY,
    RECENCY_OUTSIDE,
    SIMILARITY,
)
from models.sessions import Kept
from tests.made import act, show, unit, visit

ROW = {f"l{row}": row for row in range(6)}
VECTORS = unit(6, 4)


def compute(*events: Kept, rows: list[int] | None = None, **given: object) -> features.Floats:
    given = {"vector": None, "positions": None, "scores": None} | given
    at = np.array(list(range(6)) if rows is None else rows)
    if given["positions"] is None:
        given["positions"] = np.arange(1, len(at) + 1)
    return features.compute(rows=at, vectors=VECTORS, row=ROW, session=visit(*events), **given)  # type: ignore[arg-type]


def test_a_matrix_has_a_row_a_candidate_and_a_column_a_feature() -> None:
    matrix = compute(act(0, "l1"))
    assert matrix.shape == (6, len(FEATURES))
    assert matrix.dtype == np.float32
    assert matrix[:, POSITION].tolist() == pytest.approx(np.log2([1, 2, 3, 4, 5, 6]))


def test_similarity_is_the_dot_product_and_unknown_without_a_vector_on_either_side() -> None:
    vectors = VECTORS.copy()
    vectors[2] = 0
    matrix = features.compute(
        rows=np.arange(6),
        positions=np.arange(1, 7),
        vectors=vectors,
        row=ROW,
        session=visit(act(0, "l1")),
        vector=VECTORS[1],
    )
    expected = vectors @ VECTORS[1]
    expected[2] = NO_SIMILARITY
    np.testing.assert_allclose(matrix[:, SIMILARITY], expected, atol=1e-6)
    assert (compute(act(0, "l1"))[:, SIMILARITY] == np.float32(NO_SIMILARITY)).all()


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


def test_the_callers_scores_may_be_large_but_not_beyond_arithmetic() -> None:
    large = compute(act(0, "l1"), rows=[0, 1], scores=[1e100, 3e100])[:, CALLER_SCORE]
    assert large.tolist() == [-1.0, 1.0]
    assert not compute(act(0, "l1"), rows=[0, 1], scores=[1e308, 1.0])[:, CALLER_SCORE].any()
    assert not compute(act(0, "l1"))[:, CALLER_SCORE].any()


def test_long_lists_and_far_positions_stay_finite() -> None:
    rows = [row % 6 for row in range(2_000)]
    matrix = compute(show(0, "l1"), act(1, "l1"), rows=rows, positions=np.arange(1, 2_001) * 500)
    assert np.isfinite(matrix).all()
