from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models import bundle, ranker
from models.bundle import Training
from models.encoder import Encoder, Learned, Mean
from models.errors import UserError
from models.sessions import Action, Session
from models.training import corpus as corpus_
from models.training import held_out, session_encoder
from models.training.contexts import Contexts
from models.training.corpus import Corpus
from models.training.run import Run
from models.training.session_encoder import SessionEncoder
from tests.made import START, a_bundle, a_corpus, unit

SMALL = SessionEncoder(dimensions=12, epochs=8, block=64, negatives=32, learning_rate=0.02)


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
        steps, weights = Contexts.of(a_corpus([(*rows, 0)])).before(np.array([len(rows)]), 3)
        wanted = (vectors[steps] * learned.ages * weights[:, :, None]).sum(axis=1)[0] + learned.start
        np.testing.assert_allclose(
            np.array(encoder.encode(session(*rows))), wanted / np.linalg.norm(wanted), atol=2e-5
        )


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


def test_what_weighs_more_counts_more() -> None:
    corpus = cycles(60)
    assert Contexts.of(corpus).weights.tolist() == [[1.0] * len(corpus.tokens)] * 2
    long = Contexts.of(a_corpus([(0, 1), (1, 2)], seconds=90.0))
    assert long.weights.tolist() == [[1.0] * 4, [1.5] * 4]


def test_what_is_before_a_step_is_of_its_own_session_newest_first() -> None:
    contexts = Contexts.of(a_corpus([(0, 1), (2, 3, 1)]))
    assert contexts.targets.tolist() == [1, 3, 4]
    steps, weights = contexts.before(contexts.targets, 2)
    assert weights.tolist() == [[1, 0], [1, 0], [1, 1]]
    assert (steps * weights).tolist() == [[0, 0], [2, 0], [3, 2]]


def test_recent_sessions_weigh_more_by_half_lives() -> None:
    corpus = a_corpus([(0, 1)] * 300)
    corpus.times[:] = np.arange(600)
    weights = session_encoder._recency(corpus, held_out.times(corpus), 1 / 3)
    assert weights[[199, 399]] / weights[599] == pytest.approx([0.25, 0.5], rel=0.02)
    assert weights.mean() == pytest.approx(1, rel=0.01)
    assert set(session_encoder._recency(corpus, held_out.times(corpus), float("inf")).tolist()) == {1.0}


def test_where_habits_change_recent_sessions_weigh_more() -> None:
    random = np.random.default_rng(0)
    before, after = random.permutation(40), random.permutation(40)

    def visit(follows: npt.NDArray[np.int64], start: int) -> list[int]:
        return [start, int(follows[start]), int(follows[follows[start]])]

    def chosen(change: int) -> float:
        starts = random.integers(40, size=1_500).tolist()
        sessions = [visit(before if at < change else after, start) for at, start in enumerate(starts)]
        corpus, run = a_corpus(sessions), Run(np.random.default_rng(1))
        corpus.times[:] = np.arange(len(corpus.times))
        session_encoder.train(corpus, replace(SMALL, epochs=1), run)
        return run.metrics.get("half_life", math.inf)

    assert chosen(1_350) < chosen(0)


def test_one_session_that_ends_long_after_all_others_does_not_weigh_everything() -> None:
    corpus = a_corpus([(0, 1)] * 100)
    corpus.times[:] = np.arange(200)
    corpus.times[-1] = 1_000_000
    assert session_encoder._recency(corpus, held_out.times(corpus), 0.25).max() < 5


def test_a_corpus_in_many_parts_is_learned_as_well_as_one_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = cycles()
    for of in (corpus_, session_encoder):
        monkeypatch.setattr(of, "PART", 100)
    assert len(list(corpus.parts())) > 10
    learned = made(corpus)
    found = 0
    for start in range(12):
        vector = np.array(learned.encoder.encode(session(start, (start + 1) % 12)))
        found += learned.listings.ids[int(np.argmax(learned.vectors @ vector))] == f"l{(start + 2) % 12}"
    assert found >= 11


def test_fewer_listings_than_dimensions_can_be_learned() -> None:
    run = Run(np.random.default_rng(1))
    vectors = session_encoder.train(a_corpus([(0, 1, 2)] * 20), SessionEncoder(), run)
    assert vectors.shape == (3, 64)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_where_nobody_acts_on_two_listings_there_is_nothing_to_learn() -> None:
    run = Run(np.random.default_rng(1))
    vectors = session_encoder.train(a_corpus([(0, 0), (1, 1, 1)]), SMALL, run)
    assert not vectors.any()
    assert run.encoder is None


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


def test_what_is_in_memory_does_not_grow_with_the_clicks(monkeypatch: pytest.MonkeyPatch) -> None:
    for of, name in ((corpus_, "PART"), (session_encoder, "PART"), (held_out, "SAMPLE")):
        monkeypatch.setattr(of, name, 4_000)
    small = SessionEncoder(dimensions=4, ages=2, epochs=1, block=1_000, negatives=4, diffusions=1, reach=1)
    most = []
    for sessions in (1_500, 12_000):
        corpus = cycles(sessions)
        tracemalloc.start()
        session_encoder.train(corpus, small, Run(np.random.default_rng(1)))
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert most[1] < 1.5 * most[0]
