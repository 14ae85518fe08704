"""Listings that nobody acted on have a vector when training is over, where anything near them has one."""

from __future__ import annotations

import numpy as np
import pytest

from models.listings import Listing
from models.training import pipeline
from models.training.eges import Eges
from models.training.skip_gram import SkipGram
from tests.made import a_corpus

KNOWN = [
    Listing(listing_id=f"l{row}", market="Rio", type="ab"[row % 2], price=50, latitude=latitude, longitude=0)
    for row, latitude in enumerate([0, 0.01, 0.02, 0.03, 0.001, 50])
]
"""Four that are acted on, one beside the first, and one far from all."""


def test_a_cold_listing_has_the_mean_of_its_neighbours_and_one_without_any_has_none() -> None:
    corpus = a_corpus([(0, 1, 2, 3)] * 10, KNOWN)
    fitted = pipeline.learn(corpus, method="skip-gram", settings=SkipGram(dimensions=4, epochs=2))
    vectors = fitted.vectors
    mean = vectors[[0, 2]].mean(axis=0)
    np.testing.assert_allclose(vectors[4], mean / np.linalg.norm(mean), atol=1e-6)
    assert not vectors[5].any()
    assert {
        name: fitted.training.metrics[name] for name in ("listings_with_vector", "cold", "cold_with_vector")
    } == {
        "listings_with_vector": 5,
        "cold": 2,
        "cold_with_vector": 1,
    }


def test_what_the_method_knows_of_a_cold_listing_goes_before_its_neighbours() -> None:
    corpus = a_corpus([(0, 1, 2, 3)] * 10, KNOWN)
    settings = Eges(dimensions=4, epochs=2, side="type")
    fitted = pipeline.learn(corpus, method="eges", settings=settings)
    vectors = fitted.vectors
    assert fitted.training.metrics["cold_with_vector"] == 2
    assert vectors[4] @ vectors[[0, 2]].mean(axis=0) != pytest.approx(1, abs=1e-3)
    assert vectors[4].any()
    assert vectors[5].any()
