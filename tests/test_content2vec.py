from __future__ import annotations

import numpy as np
import pytest
import torch

from models.errors import UserError
from models.listings import Listing, collect
from models.training import bags, content2vec
from models.training.content2vec import Content2Vec
from models.training.neighbours import pairs
from models.training.run import Run
from tests.made import a_corpus
from tests.planted import GROUPS, agreement, planted

SMALL = Content2Vec(dimensions=16, epochs=8, block=128)
WORDS = ("sunny terrace", "quiet garden", "lively bar")


def known(size: int) -> list[Listing]:
    """Listings whose words tell of their group, with others that do not."""
    return [
        Listing(
            listing_id=f"l{row}",
            market=f"m{row % 2}",
            attributes={"text": f"A {WORDS[row % GROUPS]}, number {row % 5}.", "stars": float(row % 4)},
        )
        for row in range(size)
    ]


def test_it_finds_planted_groups_and_those_of_listings_nobody_acted_on() -> None:
    vectors = content2vec.train(planted(known=known(24)), SMALL, Run(np.random.default_rng(1)))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert agreement(vectors[:18]) == 1.0
    nearest = (vectors[18:] @ vectors[:18].T).argmax(axis=1)
    assert (nearest % GROUPS == np.arange(18, 24) % GROUPS).all()


def test_a_listing_of_which_nothing_is_said_has_a_vector_from_its_sessions_or_none() -> None:
    rows = [*known(18), Listing(listing_id="l18")]
    rows[0] = Listing(listing_id="l0")
    vectors = content2vec.train(planted(known=rows), SMALL, Run(np.random.default_rng(1)))
    assert vectors[0].any()
    assert not vectors[18].any()


def test_the_residual_unit_adds_what_its_layers_make() -> None:
    random = np.random.default_rng(0)
    text, attributes, own = (random.normal(size=(3, size)) for size in (2, 2, 4))
    inner, outer = random.normal(size=(2, 8, 8))
    together = np.concatenate([text, attributes, own], axis=1)
    expected = together + np.maximum(together @ inner, 0) @ outer
    found = content2vec.joined(*map(torch.from_numpy, (text, attributes, own, inner, outer)))
    np.testing.assert_allclose(found, expected)


def test_words_and_values_are_codes_of_what_at_least_two_listings_have() -> None:
    listings = collect(
        [
            Listing(listing_id="a", market="x", attributes={"text": "Red, RED sea", "has": ("pool", "bar")}),
            Listing(
                listing_id="b", market="y", attributes={"text": "red house", "has": ("pool",), "new": True}
            ),
            Listing(listing_id="c", market="x", attributes={"new": True}),
        ]
    )
    words, values = bags.words(listings, "text"), bags.values(listings, "text")
    assert words.names == ["red"]
    assert bags.words(listings, "has").names == ["pool"]
    assert values.names == ["attributes.has=pool", "attributes.new=True", "market=x"]
    table = torch.tensor([[1.0], [2.0], [6.0]])
    assert values.means(table, np.array([2, 0, 1])).flatten().tolist() == [4.0, 3.5, 1.5]
    assert words.means(table[:1], np.array([2, 0])).flatten().tolist() == [0.0, 1.0]


def test_pairs_are_of_one_session_and_no_farther_than_the_window() -> None:
    corpus = a_corpus([(0, 1, 2, 1), (3, 4), (0, 0)])
    found = set()
    for seed in range(20):
        for left, right, done in pairs(corpus, 2, 2, np.random.default_rng(seed)):
            assert 0 < done <= 8
            found |= set(zip(left.tolist(), right.tolist(), strict=True))
    assert found == {(0, 1), (1, 2), (0, 2), (2, 1), (3, 4)}


def test_without_content_it_is_refused_with_what_to_give() -> None:
    with pytest.raises(UserError, match=r"attribute `text`; they have no attributes: give --listings FILE"):
        content2vec.train(planted(), SMALL, Run(np.random.default_rng(1)))
    with pytest.raises(UserError, match=r"attribute `prose`; they have stars, text; --set text=NAME"):
        content2vec.train(planted(known=known(18)), Content2Vec(text="prose"), Run(np.random.default_rng(1)))
    with pytest.raises(UserError, match="nothing is: give --listings FILE"):
        content2vec.train(planted(), Content2Vec(text=""), Run(np.random.default_rng(1)))
