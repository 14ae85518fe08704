from __future__ import annotations

import numpy as np
import pytest
import torch

from models.training import skip_gram
from models.training.corpus import Corpus
from models.training.run import Run
from models.training.skip_gram import SkipGram
from tests.made import a_corpus

SMALL = SkipGram(dimensions=8, epochs=8, block=64, shared=16)


def planted(groups: int = 3, each: int = 6, sessions: int = 300, seed: int = 0) -> Corpus:
    """Sessions that stay within one group of listings: listing i is of group i % groups."""
    random = np.random.default_rng(seed)
    return a_corpus(random.permutation(each)[:4] * groups + random.integers(groups) for _ in range(sessions))


def test_it_finds_planted_groups() -> None:
    vectors = skip_gram.train(planted(), SMALL, Run(np.random.default_rng(1)))
    similarity = vectors @ vectors.T
    group = np.arange(len(vectors)) % 3
    same = (group[:, None] == group) & ~np.eye(len(vectors), dtype=bool)
    assert similarity[same].mean() > similarity[~same & ~np.eye(len(vectors), dtype=bool)].mean() + 0.5
    np.fill_diagonal(similarity, -1)
    assert (group[similarity.argmax(axis=1)] == group).mean() == 1.0


def test_vectors_have_length_one() -> None:
    vectors = skip_gram.train(planted(), SMALL, Run(np.random.default_rng(1)))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_one_seed_gives_the_same_bits_and_another_seed_others() -> None:
    torch.set_num_threads(1)
    one, two, other = (
        skip_gram.train(planted(), SMALL, Run(np.random.default_rng(seed))) for seed in (1, 1, 2)
    )
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != other.tobytes()


def test_the_loss_falls() -> None:
    run = Run(np.random.default_rng(1))
    skip_gram.train(planted(), SMALL, run)
    losses = [epoch.loss for epoch in run.curve]
    assert len(losses) == SMALL.epochs
    assert losses[-1] < 0.8 * losses[0]


def test_positives_are_near_of_the_same_session_and_another_listing() -> None:
    tokens = np.array([0, 0, 1, 2, 1, 3, 4, 0, 0])
    sessions = np.array([-1, -1, 0, 0, 0, 0, 1, -1, -1])
    wanted = skip_gram._wanted(tokens, sessions, np.array([2, 1, 2, 2, 2]), 2)
    assert wanted.tolist() == [
        [0, 0, 0, 1, 0],  # two to the right is the listing itself
        [0, 1, 0, 1, 0],
        [0, 1, 0, 1, 0],
        [1, 1, 0, 0, 0],  # the right neighbour is in another session
        [0, 0, 0, 0, 0],
    ]


def test_sessions_shuffle_as_wholes_with_nothing_lost() -> None:
    corpus = planted(sessions=20)
    tokens, sessions = skip_gram._shuffled(corpus, 3, np.random.default_rng(0))
    assert tokens[:3].tolist() == tokens[-3:].tolist() == [0, 0, 0]
    tokens, sessions = tokens[3:-3], sessions[3:-3]
    assert sessions.tolist() != corpus.session.tolist()
    for session in range(20):
        assert tokens[sessions == session].tolist() == corpus.tokens[corpus.session == session].tolist()
    assert np.count_nonzero(np.diff(sessions)) == 19


def test_the_loss_is_word2vecs() -> None:
    random = np.random.default_rng(0)
    centres, windows, negatives = (
        torch.from_numpy(random.normal(size=size)) for size in ((2, 4), (2, 3, 4), (5, 4))
    )
    wanted = torch.tensor([[1.0, 0, 1], [0, 0, 1]], dtype=torch.float64)
    share = torch.tensor([[2.0], [1.0]], dtype=torch.float64)
    expected = 0.0
    for b in range(2):
        for w in range(3):
            expected += wanted[b, w].item() * np.log1p(np.exp(-(centres[b] @ windows[b, w]).item()))
        for k in range(5):
            expected += share[b, 0].item() * np.log1p(np.exp((centres[b] @ negatives[k]).item()))
    assert skip_gram.loss(centres, windows, wanted, negatives, share).item() == pytest.approx(expected)


def test_a_rows_moves_are_added_up_before_it_is_moved() -> None:
    table, sums = torch.zeros(3, 2), torch.zeros(3, 1)
    rows = torch.tensor([2, 0, 2])
    moves = torch.tensor([[1.0, 0.0], [3.0, 4.0], [1.0, 2.0]])
    skip_gram._descend(table, sums, rows, moves, 0.1)
    # Row 2 moves by (2, 2), whose mean square is 4; row 0 by (3, 4), of mean square 12.5.
    assert sums.flatten().tolist() == [12.5, 0, 4]
    np.testing.assert_allclose(table[2], [-0.1, -0.1], rtol=1e-6)
    np.testing.assert_allclose(table[0], -0.1 * np.array([3, 4]) / 12.5**0.5, rtol=1e-6)
    assert table[1].tolist() == [0, 0]
