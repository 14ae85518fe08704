from __future__ import annotations

import json

import numpy as np
import pytest

from models.evaluation import cold
from models.evaluation.visits import Visits, gather
from models.events import Click
from tests.made import MINUTE, START, a_bundle


def visits(*clicked: tuple[str, ...]) -> Visits:
    return gather(
        (
            Click(
                event_id=f"{user}-{at}", user_id=f"u{user}", timestamp=START + at * MINUTE, listing_id=name
            ),
            None,
        )
        for user, names in enumerate(clicked)
        for at, name in enumerate(names)
    )


TRAIN = visits(("l0", "l1"))
VECTORS = np.eye(4, dtype=np.float32)[[0, 1, 0, 1, 2]]
"""l2 is like l0, l3 like l1, and l4 like none."""


def test_a_cold_listing_is_found_by_its_vector() -> None:
    found = cold.report(
        a_bundle(vectors=VECTORS), TRAIN, visits(("l0", "l2"), ("l1", "l3")), np.random.default_rng(1)
    )
    assert (found["clicks"], found["n"], found["listings"], found["coverage"]) == (2, 2, 3, 1.0)
    assert found["mrr@20"] == 1.0
    assert found["ci"]["mrr@20"] == [1.0, 1.0]
    assert found["chance"] == {"hit_rate@20": 1.0, "mrr@20": pytest.approx((1 + 1 / 2 + 1 / 3) / 3)}


def test_a_cold_listing_without_a_vector_counts_against_the_coverage() -> None:
    vectors = VECTORS.copy()
    vectors[3] = 0
    found = cold.report(
        a_bundle(vectors=vectors),
        TRAIN,
        visits(("l0", "l2"), ("l1", "l3"), ("l0", "new")),
        np.random.default_rng(1),
    )
    assert (found["clicks"], found["n"], found["listings"], found["coverage"]) == (3, 1, 2, 1 / 3)


def test_first_clicks_and_clicks_on_known_listings_are_not_asked_for() -> None:
    found = cold.report(
        a_bundle(vectors=VECTORS), TRAIN, visits(("l2", "l0", "l1")), np.random.default_rng(1)
    )
    assert (found["clicks"], found["n"], found["coverage"], found["mrr@20"]) == (0, 0, None, None)
    assert json.dumps(found, allow_nan=False)
