from __future__ import annotations

import numpy as np
import pytest

from models.training import _skip_gram
from models.training.noise import TRIES, Noise, noise

COUNTS = np.array([40, 10, 0, 20, 30, 1, 5])
NONE = np.full(7, -1, np.int32)
MARKETS = np.array([0, 1, 0, 1, 0, 2, -1], np.int32)


def shares(drawn: Noise, many: int, near: int, centre: int, context: int) -> np.ndarray:
    pairs = 4_000
    random = np.random.default_rng(0)
    found = drawn.draw(np.full(pairs, context), many, near, np.full(pairs, centre), random)
    assert found.shape == (pairs, many + near)
    return np.bincount(found.ravel(), minlength=len(COUNTS)) / found.size


@pytest.mark.parametrize("exponent", [0.0, 0.75, 1.0])
def test_negatives_are_drawn_by_frequency_to_a_power(exponent: float) -> None:
    expected = np.where(COUNTS > 0, np.maximum(COUNTS, 1.0) ** exponent, 0)
    found = shares(noise(COUNTS, NONE, exponent), 5, 0, 0, 2)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.01)


def test_negatives_of_the_market_are_of_the_centres_market_alone() -> None:
    found = shares(noise(COUNTS, MARKETS, 1.0), 0, 3, 1, 2)
    np.testing.assert_allclose(found, [0, 10 / 30, 0, 20 / 30, 0, 0, 0], atol=0.015)


@pytest.mark.parametrize("centre", [5, 6])
def test_a_centre_alone_in_its_market_or_of_none_has_negatives_from_everywhere(centre: int) -> None:
    found = shares(noise(COUNTS, MARKETS, 1.0), 0, 3, centre, 2)
    np.testing.assert_allclose(found, COUNTS / COUNTS.sum(), atol=0.015)


def test_a_listing_is_hardly_ever_a_negative_of_its_own_pair() -> None:
    assert shares(noise(COUNTS, NONE, 1.0), 5, 0, 1, 0)[0] < 0.002


def test_a_draw_is_the_same_in_compiled_code() -> None:
    random = np.random.default_rng(0)
    counts = random.integers(0, 50, 300) ** 3
    drawn = noise(counts, random.integers(-1, 9, 300).astype(np.int32), 0.75)
    compiled = _skip_gram.Noise(drawn.listings, drawn.ends, drawn.guide, drawn.low, drawn.high, TRIES)
    points = np.concatenate([random.random(2_000), drawn.low, drawn.high])
    assert [compiled.at(point) for point in points.tolist()] == drawn._at(points).tolist()


def test_markets_lie_end_to_end() -> None:
    drawn = noise(COUNTS, MARKETS, 1.0)
    assert drawn.listings.tolist() == [6, 0, 4, 1, 3, 5]
    assert drawn.low.tolist() == pytest.approx([5 / 106, 75 / 106, 5 / 106, 75 / 106, 5 / 106, 0, 0])
    assert drawn.high.tolist() == pytest.approx([75 / 106, 105 / 106, 75 / 106, 105 / 106, 75 / 106, 1, 1])


def test_without_a_click_there_is_no_noise() -> None:
    with pytest.raises(ValueError, match="nothing was acted on"):
        noise(np.zeros(7, np.int64), NONE, 0.75)
