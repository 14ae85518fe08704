from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation import confidence, lists, significance
from models.evaluation.coverage import coverage
from models.evaluation.hit_rate import hits
from models.evaluation.mrr import reciprocal
from models.evaluation.ndcg import gain
from models.evaluation.popularity_bias import popularity

RANKS = [1.0, 3.0, 20.0, 21.0, np.inf]


def test_a_hit_is_a_rank_within_the_cutoff() -> None:
    assert hits(RANKS, 5).tolist() == [1, 1, 0, 0, 0]
    assert hits(RANKS, 20).tolist() == [1, 1, 1, 0, 0]


def test_reciprocal_ranks_beyond_the_cutoff_are_nothing() -> None:
    assert reciprocal(RANKS, 5).tolist() == [1, 1 / 3, 0, 0, 0]
    assert reciprocal(RANKS).tolist() == [1, 1 / 3, 1 / 20, 1 / 21, 0]


def test_the_gain_of_a_target_falls_with_the_logarithm_of_its_rank() -> None:
    assert gain(RANKS, 20).tolist() == [1, 0.5, 1 / math.log2(21), 0, 0]


def test_coverage_is_the_share_of_listings_in_any_list() -> None:
    assert coverage(np.array([[0, 1], [1, 3], [0, -1]]), 5) == 3 / 5
    assert coverage(np.full((2, 2), -1), 5) == 0


def test_popularity_is_relative_to_the_most_popular_listing() -> None:
    lists = np.array([[0, 1], [2, -1], [-1, -1]])
    assert popularity(lists, [4, 2, 1]).tolist() == [0.75, 0.25, 0]


def test_of_equal_scores_the_lower_column_is_the_better_one() -> None:
    scores = np.array([[0, 2, 0, 1, 0], [1, 1, 1, 1, 1], [-1, 0, 0, -np.inf, 3.0]])
    assert lists.best(scores, 3).tolist() == [[1, 3, 0], [0, 1, 2], [4, 1, 2]]


def test_what_may_not_be_listed_leaves_the_list_shorter() -> None:
    scores = np.array([[1, -np.inf, -np.inf]])
    assert lists.best(scores, 2).tolist() == [[0, -1]]
    assert lists.best(scores, 9).tolist() == [[0, -1, -1]]


SCORES = st.lists(
    st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0]), min_size=6, max_size=6), min_size=1, max_size=5
)


@given(SCORES, st.integers(1, 8), st.sampled_from([np.float32, np.float64]))
def test_the_best_are_what_sorting_gives(drawn: list[list[float]], k: int, kind: type) -> None:
    expected = [
        [at if row[at] > -np.inf else -1 for at in sorted(range(6), key=lambda at: (-row[at], at))][:k]
        for row in drawn
    ]
    assert lists.best(np.array(drawn, kind), k).tolist() == expected


def test_a_rank_is_the_place_in_the_list_and_infinite_outside_it() -> None:
    assert lists.ranks(np.array([[4, 2], [4, 2], [4, -1]]), np.array([2, 3, 4])).tolist() == [2, np.inf, 1]


def test_differences_have_narrower_intervals_than_what_is_subtracted() -> None:
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(100), 3)
    one = random.normal(size=300) + random.normal(size=100)[users]
    values = np.column_stack([one, one + 0.1 + 0.01 * random.normal(size=300)])
    means = confidence.resampled(*confidence.sums(values, users), random)
    [(low, high)] = confidence.percentiles(means[:, 1:] - means[:, :1])
    assert 0.09 < low < 0.1 < high < 0.11
    [(alone, above), _] = confidence.percentiles(means)
    assert above - alone > 10 * (high - low)


def test_sums_are_those_of_each_user_who_has_a_row() -> None:
    of, counts = confidence.sums(np.array([[1.0, 2], [3, 4], [5, 6]]), np.array([2, 0, 2]))
    assert of.tolist() == [[3, 4], [6, 8]]
    assert counts.tolist() == [1, 2]


def test_the_p_value_is_that_of_every_exchange_counted_out() -> None:
    differences = np.array([[1.0, 1], [1, -1], [1, 1], [1, -1], [1, 0]])
    one, other = significance.p_values(differences, np.random.default_rng(0))
    assert one == pytest.approx(2 / 2**5, abs=0.01)  # all signs alike
    assert other == 1.0  # every sum is at least as far from zero


def test_methods_that_never_differ_are_not_told_apart_and_a_clear_difference_is() -> None:
    differences = np.column_stack([np.zeros(60), np.full(60, 0.2)])
    same, clear = significance.p_values(differences, np.random.default_rng(0))
    assert same == 1.0
    assert clear == pytest.approx(1 / (significance.EXCHANGES + 1))
