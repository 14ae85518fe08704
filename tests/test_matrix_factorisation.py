from __future__ import annotations

import numpy as np
import pytest
import torch

from models.errors import UserError
from models.training import matrix_factorisation
from models.training.interactions import Interactions
from models.training.matrix_factorisation import MatrixFactorisation, weighted_squares
from models.training.noise import Unigram
from models.training.run import Run
from tests.made import a_corpus
from tests.planted import agreement, planted

SMALL = MatrixFactorisation(dimensions=8, epochs=10, block=128, rows="user")
SQUARES = MatrixFactorisation(dimensions=8, epochs=10, block=128, loss="weighted-squares")


@pytest.mark.parametrize("settings", [SMALL, SQUARES])
def test_it_finds_planted_groups(settings: MatrixFactorisation) -> None:
    vectors = matrix_factorisation.train(planted(), settings, Run(np.random.default_rng(1)))
    assert agreement(vectors) == 1.0


def test_weighted_squares_are_those_of_the_whole_matrix() -> None:
    random = np.random.default_rng(0)
    users, listings = random.normal(size=(4, 3)), random.normal(size=(6, 3))
    often = random.integers(0, 3, (4, 6))
    expected = ((1 + 2.0 * often) * ((often > 0) - users @ listings.T) ** 2).sum()
    of, what = often.nonzero()
    share = 1 / (often > 0).sum(axis=1)[of]
    found = weighted_squares(
        torch.from_numpy((users[of] * listings[what]).sum(axis=1)),
        torch.from_numpy(often[of, what]),
        torch.from_numpy(share),
        torch.from_numpy(users[of]),
        torch.from_numpy(listings),
        2.0,
    )
    assert found.item() == pytest.approx(expected)


def test_a_users_sessions_are_one_row() -> None:
    corpus = a_corpus([(0, 1, 0), (2, 1), (1, 3)])
    corpus.users[:] = [7, 5, 7]
    matrix = Interactions(corpus, "user")
    assert matrix.per_row.tolist() == [2, 3]
    [block] = matrix.blocks(10, np.random.default_rng(0))
    entries = sorted(zip(block.rows.tolist(), block.listings.tolist(), block.counts.tolist(), strict=True))
    assert entries == [(0, 1, 1), (0, 2, 1), (1, 0, 2), (1, 1, 2), (1, 3, 1)]
    acted = block.acted(np.array([[2]] * len(block.rows)))
    assert acted[:, 0].tolist() == (block.rows == 0).tolist()


def test_negatives_are_drawn_by_frequency_and_none_that_never_stood() -> None:
    drawn = Unigram(np.array([0, 16, 1, 0]), 0.5).draw(np.random.default_rng(0), 10_000)
    assert set(drawn.tolist()) == {1, 2}
    assert np.mean(drawn == 1) == pytest.approx(0.8, abs=0.02)


def test_a_loss_that_there_is_not_is_refused() -> None:
    with pytest.raises(UserError, match=r"`loss` must be one of .*bpr.*weighted-squares, not 'squared'"):
        matrix_factorisation.train(
            planted(), MatrixFactorisation(loss="squared"), Run(np.random.default_rng(1))
        )
