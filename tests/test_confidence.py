from __future__ import annotations

import numpy as np
import pytest

from models.evaluation import confidence, mrr, ranks


def test_ranks_count_from_one_and_mrr_is_the_mean_of_their_reciprocals() -> None:
    assert ranks.rank_of(2, [2, 0, 1]) == 1
    assert ranks.rank_of(1, [2, 0, 1]) == 3
    assert mrr.reciprocal([1, 2, 4]).mean() == pytest.approx((1 + 0.5 + 0.25) / 3)


def test_the_interval_of_a_mean_is_about_two_standard_errors_each_way() -> None:
    random = np.random.default_rng(0)
    values = random.normal(3.0, 1.0, 400)
    low, high = confidence.interval(values, [str(n) for n in range(400)], random)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_one_users_searches_are_not_many_observations() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=20), 50)
    users = np.repeat(np.arange(20), 50).astype(str).tolist()
    by_user = confidence.interval(values, users, np.random.default_rng(1))
    by_search = confidence.interval(values, [str(n) for n in range(1000)], np.random.default_rng(1))
    assert by_user[1] - by_user[0] > 4 * (by_search[1] - by_search[0])


def test_users_with_more_searches_weigh_more() -> None:
    low, high = confidence.interval([1.0, 0, 0, 0], ["a", "b", "b", "b"], np.random.default_rng(0))
    assert (low, high) == (0.0, 1.0)
    alone = confidence.interval([0.3, 0.5], ["a", "a"], np.random.default_rng(0))
    assert alone == pytest.approx((0.4, 0.4))


def test_one_seed_gives_one_interval_and_no_values_none() -> None:
    values, users = [0.1, 0.5, 1.0], ["a", "b", "c"]
    one, two = (confidence.interval(values, users, np.random.default_rng(7)) for _ in range(2))
    assert one == two
    with pytest.raises(ValueError, match="no values"):
        confidence.interval([], [], np.random.default_rng(0))
