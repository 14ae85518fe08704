"""Maximal marginal relevance, beside a loop that does what the paper says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.diversity import PLACES, diversify
from tests.made import unit


def naive(scores: list[float], vectors: list[list[float]], diversity: float, places: int) -> list[int]:
    low, high = min(scores), max(scores)
    scaled = [(score - low) / (high - low) if high > low else 0.0 for score in scores]
    left, chosen = list(range(len(scores))), []
    while left and len(chosen) < places:
        values = []
        for one in left:
            alike = [
                sum(a * b for a, b in zip(vectors[one], vectors[other], strict=True)) for other in chosen
            ]
            values.append((1 - diversity) * scaled[one] - diversity * (max(alike) if alike else 0.0))
        chosen.append(left.pop(values.index(max(values))))
    return chosen + left


@given(
    st.integers(1, 70),
    st.sampled_from([0.1, 0.3, 0.5, 0.9, 1.0]),
    st.integers(0, 10_000),
    st.sampled_from([1, 5, PLACES]),
)
def test_it_is_what_the_loop_gives(size: int, diversity: float, seed: int, places: int) -> None:
    scores = np.sort(np.random.default_rng(seed).normal(size=size))[::-1].astype(np.float32)
    vectors = unit(size, 6, seed)
    ours = diversify(scores, vectors, diversity, places).tolist()
    assert ours == naive(scores.tolist(), vectors.tolist(), diversity, places)


def test_none_leaves_the_order_and_all_puts_the_unlike_next() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], np.float32)
    scores = np.array([4, 3, 2, 1], np.float32)
    assert diversify(scores, vectors, 0.0).tolist() == [0, 1, 2, 3]
    assert diversify(scores, vectors, 1.0).tolist()[:2] == [0, 2]


@pytest.mark.parametrize("size", [0, 1, 3])
def test_equal_scores_and_short_lists_are_lists_too(size: int) -> None:
    scores, vectors = np.ones(size, np.float32), np.zeros((size, 4), np.float32)
    assert diversify(scores, vectors, 0.5).tolist() == list(range(size))


def test_below_its_places_the_order_stays() -> None:
    size = 80
    order = diversify(np.arange(size, 0, -1).astype(np.float32), unit(size, 8), 0.9).tolist()
    assert sorted(order) == list(range(size))
    assert order[PLACES:] == sorted(order[PLACES:])
