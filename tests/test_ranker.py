from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import ranker
from models.features import FEATURES, KNOTS, POSITION, PRICE, RECENCY, SIMILARITY
from models.ranker import Ranker, places


def curves(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(FEATURES), KNOTS)).astype(np.float32)


@given(st.lists(st.floats(-50, 50, width=32), min_size=len(FEATURES), max_size=len(FEATURES)))
def test_a_contribution_is_the_curve_at_the_features_value(values: list[float]) -> None:
    made = Ranker(curves())
    parts = made.contributions(np.array([values], np.float32).T)[:, 0]
    for feature, value, part, curve in zip(FEATURES, values, parts, made.weights, strict=True):
        grid = [feature.low + feature.step * knot for knot in range(KNOTS)]
        assert part == pytest.approx(np.interp(value, grid, curve), abs=5e-3)


def test_contributions_add_up_to_the_score() -> None:
    made = Ranker(curves())
    matrix = np.random.default_rng(1).normal(size=(len(FEATURES), 200)).astype(np.float32)
    np.testing.assert_allclose(
        made.contributions(matrix).sum(axis=0), made.scores(matrix), rtol=1e-5, atol=1e-5
    )


def test_training_finds_the_same_places_on_the_curves() -> None:
    made = Ranker(curves())
    matrix = np.random.default_rng(1).normal(scale=5, size=(len(FEATURES), 200)).astype(np.float32)
    knots, between = places(matrix)
    flat = made.weights.ravel()
    np.testing.assert_allclose(
        flat[knots] * (1 - between) + flat[knots + 1] * between, made.contributions(matrix), atol=1e-4
    )


def test_a_candidates_score_does_not_depend_on_the_others_in_the_matrix() -> None:
    made = Ranker(curves())
    matrix = np.random.default_rng(1).normal(size=(len(FEATURES), 200)).astype(np.float32)
    for size in (1, 3, 17):
        part = np.ascontiguousarray(matrix[:, :size])
        np.testing.assert_array_equal(made.scores(part), made.scores(matrix)[:size])


def test_a_ranker_on_disk_is_the_same_ranker() -> None:
    made = Ranker(curves())
    read = ranker.decode(made.encode())
    np.testing.assert_array_equal(read.weights, made.weights)


def test_a_ranker_of_another_feature_or_a_later_version_is_refused() -> None:
    content = ranker.default().encode()
    with pytest.raises(ValueError, match="another feature, recentness"):
        ranker.decode(content.replace(b'"recency"', b'"recentness"'))
    with pytest.raises(ValueError, match="version 2"):
        ranker.decode(content.replace(b'"version": 1', b'"version": 2'))


def test_a_feature_that_a_ranker_does_not_know_is_worth_nothing() -> None:
    saved = msgspec.json.decode(Ranker(curves()).encode(), type=ranker.Curves)
    older = msgspec.structs.replace(saved, curves=[one for one in saved.curves if one.feature != "price"])
    read = ranker.decode(msgspec.json.encode(older))
    assert not read.weights[PRICE].any()
    np.testing.assert_array_equal(read.weights[:PRICE], Ranker(curves()).weights[:PRICE])


def test_the_default_keeps_the_callers_order_where_nothing_else_is_known() -> None:
    matrix = np.zeros((len(FEATURES), 100), np.float32)
    matrix[POSITION] = np.log2(np.arange(1, 101))
    assert np.all(np.diff(ranker.default().scores(matrix)) < 0)


def test_the_default_lifts_what_is_similar_and_what_was_acted_on() -> None:
    matrix = np.zeros((len(FEATURES), 3), np.float32)
    matrix[SIMILARITY, 1] = 0.9
    matrix[RECENCY, 2] = 1
    plain, similar, seen = ranker.default().scores(matrix)
    assert seen > similar > plain
