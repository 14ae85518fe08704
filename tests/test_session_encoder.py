from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models import bundle, ranker
from models.bundle import Training
from models.encoder import Encoder, Learned, Mean
from models.errors import UserError
from models.sessions import Action, Session
from models.training import session_encoder
from models.training.corpus import Corpus
from models.training.run import Run
from models.training.session_encoder import SessionEncoder, Sessions
from tests.made import START, a_bundle, a_corpus, unit

SMALL = SessionEncoder(dimensions=12, epochs=8, batch=64, negatives=32, learning_rate=0.02)


def cycles(sessions: int = 400, listings: int = 12, seed: int = 0) -> Corpus:
    """Visits that go round: after listing i comes i + 1, and nobody goes back."""
    random = np.random.default_rng(seed)
    first = random.integers(listings, size=sessions)
    return a_corpus([[(start + step) % listings for step in range(4)] for start in first.tolist()])


def session(*rows: int) -> Session:
    events = tuple(Action(START + at * 1_000, f"e{at}", "click", f"l{row}") for at, row in enumerate(rows))
    return Session(START, events)


def made(corpus: Corpus, seed: int = 1) -> bundle.Bundle:
    run = Run(np.random.default_rng(seed))
    vectors = session_encoder.train(corpus, SMALL, run)
    return bundle.assemble(
        listings=corpus.listings,
        vectors=vectors,
        ranker=ranker.default(),
        training=Training(source="recording", data="made"),
        learned=run.encoder,
    )


def test_it_says_what_comes_next_which_no_mean_of_what_was_clicked_can() -> None:
    corpus = cycles()
    learned = made(corpus)
    mean = Encoder(Mean(), learned.space)
    found = plain = 0
    for start in range(12):
        before, after = [start, (start + 1) % 12], (start + 2) % 12
        for encoder, add in ((learned.encoder, True), (mean, False)):
            vector = encoder.encode(session(*before))
            best = int(np.argmax(learned.vectors @ np.array(vector)))
            name = learned.listings.ids[best]
            if name == f"l{after}":
                found, plain = found + add, plain + (not add)
    assert found >= 11
    assert plain <= 2


def test_the_encoder_is_what_training_saw() -> None:
    """In numpy, in float64 and step by step, as in torch over a batch."""
    random = np.random.default_rng(0)
    learned = Learned(random.normal(size=(3, 4)).astype(np.float32), random.normal(size=4).astype(np.float32))
    vectors = unit(6, 4)
    plain = a_bundle(vectors=vectors)
    encoder = Encoder(Mean(), plain.space, learned)
    for rows in ([2], [2, 5, 2], [0, 1, 2, 3, 4]):
        tokens = np.array([*rows, 0])
        steps, weights = session_encoder._contexts(
            Sessions(tokens, np.array([0, len(tokens)]), 6), np.array([len(rows)]), 3
        )
        table = torch.from_numpy(vectors)
        wanted = ((table[steps] * torch.from_numpy(learned.ages) * weights[:, :, None]).sum(dim=1))[
            0
        ].numpy() + learned.start
        np.testing.assert_allclose(encoder.encode(session(*rows)), wanted / np.linalg.norm(wanted), atol=2e-5)


def test_a_bundle_keeps_its_encoder_and_one_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    learned = made(cycles(60))
    loaded = bundle.load(bundle.write(tmp_path, learned))
    assert loaded.encode(session(1, 2, 3)) == learned.encode(session(1, 2, 3))
    assert loaded.encoder.learned is not None
    wrong = Learned(np.zeros((3, 5), np.float32), np.zeros(5, np.float32))
    with pytest.raises(ValueError, match="`ages` is not of finite float32"):
        bundle.assemble(
            listings=learned.listings,
            vectors=learned.vectors,
            ranker=ranker.default(),
            training=learned.manifest.training,
            learned=wrong,
        )
    path = bundle.write(tmp_path / "other", learned)
    (path / bundle.ENCODER).write_bytes(b"no tensors")
    with pytest.raises(UserError, match="damaged"):
        bundle.load(path)


def test_what_weighs_more_counts_more_and_a_refusal_is_no_step() -> None:
    corpus = cycles(60)
    kept = session_encoder._sessions(corpus)
    assert kept.weights is not None
    assert kept.weights.tolist() == [[1.0] * len(corpus.tokens)] * 2
    long = session_encoder._sessions(a_corpus([(0, 1), (1, 2)], seconds=90.0))
    assert long.weights is not None
    assert long.weights.tolist() == [[1.0] * 4, [1.5] * 4]


def test_recent_sessions_weigh_more_by_half_lives() -> None:
    times = np.array([0, 0, 50, 50, 100, 100])
    sessions = Sessions(np.zeros(6, np.int64), np.array([0, 2, 4, 6]), 1, times)
    weights = session_encoder._recency(sessions, 1 / 3)
    assert weights[[0, 2, 4]] / weights[4] == pytest.approx([0.25, 0.5, 1.0])
    assert weights.mean() == pytest.approx(1)
    assert session_encoder._recency(sessions, float("inf")).tolist() == [1.0] * 6


def test_one_session_that_ends_long_after_all_others_does_not_weigh_everything() -> None:
    times = np.arange(200)
    times[-1] = 1_000_000
    sessions = Sessions(np.zeros(200, np.int64), np.arange(0, 201, 2), 1, times)
    assert session_encoder._recency(sessions, 0.25).max() < 5


def test_the_loss_is_the_softmax_corrected_for_how_often_negatives_are_drawn() -> None:
    random = np.random.default_rng(0)
    user, wanted, others = (torch.from_numpy(random.normal(size=size)) for size in ((2, 3), (2, 3), (4, 3)))
    log_odds = torch.log(torch.tensor([0.5, 1.0, 2.0, 0.1], dtype=torch.float64))
    same = torch.tensor([[False, True, False, False], [False] * 4])
    expected = []
    for b in range(2):
        positive = np.exp((user[b] @ wanted[b]).item())
        negatives = sum(
            np.exp((user[b] @ others[k]).item() - log_odds[k].item()) for k in range(4) if not same[b, k]
        )
        expected.append(-np.log(positive / (positive + negatives)))
    assert session_encoder.loss(user, wanted, others, log_odds, same).tolist() == pytest.approx(expected)
