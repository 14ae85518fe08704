from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.errors import UserError
from models.listings import Listing, collect
from models.training import given_vectors, vbpr
from models.training.run import Run
from models.training.vbpr import Vbpr
from tests.planted import GROUPS, agreement, planted

COLD = 6
"""Listings behind the 18 of the sessions, that nobody acted on."""


def looks(size: int, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    """An image's vector for each listing: its group's direction, and noise."""
    random = np.random.default_rng(seed)
    groups = random.normal(size=(GROUPS, 8))
    return groups[np.arange(size) % GROUPS] + 0.3 * random.normal(size=(size, 8))


def known(size: int, text: bool = True) -> list[Listing]:
    return [
        Listing(
            listing_id=f"l{row}",
            attributes={"image": " ".join(map(str, look)) if text else tuple(map(str, look))},
        )
        for row, look in enumerate(looks(size).round(4).tolist())
    ]


SMALL = Vbpr(attribute="image", dimensions=8, epochs=10, block=128, rows="session")


def test_it_finds_planted_groups_and_those_of_listings_nobody_acted_on() -> None:
    corpus = planted(known=known(18 + COLD))
    vectors = vbpr.train(corpus, SMALL, Run(np.random.default_rng(1)))
    assert len(vectors) == 18 + COLD
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert agreement(vectors[:18]) == 1.0
    assert not vectors[18:, :4].any()
    assert vectors[18:, 4:].any(axis=1).all()
    to_known = vectors[18:] @ vectors[:18].T
    assert (to_known.argmax(axis=1) % GROUPS == np.arange(18, 18 + COLD) % GROUPS).all()


def test_vectors_come_from_a_file_by_id(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    np.savez(path, ids=np.array(["l3", "elsewhere", "l0"]), vectors=looks(3).astype(np.float32))
    listings = collect([Listing(listing_id=f"l{row}") for row in range(5)])
    found = given_vectors.of_file(path, listings)
    unit = looks(3) / np.linalg.norm(looks(3), axis=1, keepdims=True)
    np.testing.assert_allclose(found[[3, 0]], unit[[0, 2]], atol=1e-6)
    assert found.any(axis=1).tolist() == [True, False, False, True, False]
    with pytest.raises(UserError, match="none of its ids, like `l3`, is a listing here, like `x`"):
        given_vectors.of_file(path, collect([Listing(listing_id="x")]))


def test_numbers_may_be_one_text_or_a_list_of_texts() -> None:
    one, other = (given_vectors.of_attribute("image", collect(known(4, text))) for text in (True, False))
    assert one.tobytes() == other.tobytes()


def test_without_vectors_it_is_refused_with_what_to_give() -> None:
    with pytest.raises(UserError, match=r"needs a vector .* --set vectors=FILE .* --set attribute=NAME"):
        vbpr.train(planted(), Vbpr(), Run(np.random.default_rng(1)))
    with pytest.raises(UserError, match="no listing has an attribute `image`"):
        vbpr.train(planted(), SMALL, Run(np.random.default_rng(1)))
    with pytest.raises(UserError, match="not both"):
        vbpr.train(planted(), Vbpr(vectors="a", attribute="b"), Run(np.random.default_rng(1)))


@pytest.mark.parametrize("wrong", ["1 2", "a b c d e f g h", "", "1 2 3 4 5 6 7 nan", 3.0])
def test_an_attribute_that_is_no_vector_is_refused_with_its_listing(wrong: str | float) -> None:
    rows = known(3)
    rows[2] = msgspec.structs.replace(rows[2], attributes={"image": wrong})
    with pytest.raises(UserError, match="listing `l2`: its attribute `image` must hold 8 finite numbers"):
        given_vectors.of_attribute("image", collect(rows))
