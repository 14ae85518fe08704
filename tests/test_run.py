from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.encoder import Encoder, Learned, Mean
from models.errors import UserError
from models.sessions import Action, Session
from models.training import held_out, skip_gram
from models.training.corpus import steps
from models.training.methods import METHODS, configured
from models.training.run import CHECKPOINT, Floats, Run
from models.training.skip_gram import SkipGram
from tests.made import START, a_bundle, a_corpus, unit

SMALL = SkipGram(dimensions=4, epochs=4, block=64)


def planted(sessions: int = 60) -> list[list[int]]:
    random = np.random.default_rng(0)
    return [(random.permutation(5)[:4] * 2 + random.integers(2)).tolist() for _ in range(sessions)]


class _Ended(Exception):
    pass


def test_a_run_that_was_ended_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    corpus = a_corpus(planted())
    whole = skip_gram.train(corpus, SMALL, Run(np.random.default_rng(1)))
    ended = Run(np.random.default_rng(1), checkpoints=tmp_path, what="this")

    def end(done: int, total: int, note: str) -> None:
        if note.startswith("epoch 3"):
            raise _Ended

    ended.on_progress = end
    with pytest.raises(_Ended):
        skip_gram.train(corpus, SMALL, ended)
    again = Run(np.random.default_rng(1), checkpoints=tmp_path, what="this")
    assert skip_gram.train(corpus, SMALL, again).tobytes() == whole.tobytes()
    assert len(again.curve) == SMALL.epochs
    finished = Run(np.random.default_rng(9), checkpoints=tmp_path, what="this")
    assert skip_gram.train(corpus, SMALL, finished).tobytes() == whole.tobytes()


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    corpus = a_corpus(planted())
    skip_gram.train(corpus, SMALL, Run(np.random.default_rng(1), checkpoints=tmp_path, what="this"))
    with pytest.raises(UserError, match="other data, another method or other settings"):
        skip_gram.train(corpus, SMALL, Run(np.random.default_rng(1), checkpoints=tmp_path, what="that"))
    (tmp_path / CHECKPOINT).write_bytes(b"no tensors")
    with pytest.raises(UserError, match="not a checkpoint"):
        skip_gram.train(corpus, SMALL, Run(np.random.default_rng(1), checkpoints=tmp_path, what="this"))


def test_it_stops_early_and_goes_back_to_the_best() -> None:
    state = {"table": torch.zeros(1)}
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    run = Run(np.random.default_rng(1), validate=lambda vectors: next(scores), patience=2)

    def vectors() -> Floats:
        return state["table"].numpy()

    for epoch in run.epochs(5, state, vectors):
        state["table"].fill_(epoch)
        run.step(1.0, 2.0, 1, 1)
    assert [point.validation for point in run.curve] == [0.1, 0.5, 0.4, 0.3]
    assert [point.loss for point in run.curve] == [0.5] * 4
    assert state["table"].item() == 1


def test_a_run_that_stopped_early_does_not_go_on_when_it_is_run_again(tmp_path: Path) -> None:
    scores = iter([0.5, 0.4, 0.9])
    for _ in range(2):
        state = {"table": torch.zeros(1)}
        run = Run(np.random.default_rng(1), validate=lambda vectors: next(scores), patience=1)
        run.checkpoints = tmp_path
        for epoch in run.epochs(3, state, lambda: np.zeros((1, 1), np.float32)):
            state["table"].fill_(epoch + 1)
        assert [point.validation for point in run.curve] == [0.5, 0.4]
        assert state["table"].item() == 1


def test_validation_finds_what_the_vectors_know() -> None:
    vectors = unit(6, 16)
    vectors[3] = vectors[0]
    found = steps(a_corpus([(0, 3)]))
    assert held_out.mrr(vectors, found) == pytest.approx(1 / 2)  # behind the one that is equal
    assert held_out.mrr(np.zeros_like(vectors), found) == 0.0


def test_validation_is_what_a_plain_loop_gives() -> None:
    vectors, sessions = unit(10, 5), planted(12)
    expected = []
    for session in sessions:
        for at in range(1, len(session)):
            query = sum(0.7 ** (at - 1 - i) * vectors[session[i]].astype(float) for i in range(at))
            scores = vectors @ query
            rank = 1 + sum(scores > scores[session[at]])
            expected.append(1 / rank if rank <= 20 else 0)
    assert held_out.mrr(vectors, a_corpus(sessions)) == pytest.approx(np.mean(expected))


def test_with_a_learned_encoder_it_is_the_rank_that_the_encoder_gives() -> None:
    random = np.random.default_rng(0)
    vectors = unit(30, 6)
    learned = Learned(random.normal(size=(3, 6)).astype(np.float32), random.normal(size=6).astype(np.float32))
    made = a_bundle(vectors=vectors)
    encoder = Encoder(Mean(), made.space, learned)
    rows = [random.permutation(30)[:5].tolist() for _ in range(20)]
    expected = []
    for session in rows:
        for at in range(1, 5):
            events = tuple(
                Action(START + n, f"e{n}", "click", f"l{row}") for n, row in enumerate(session[:at])
            )
            scores = vectors @ np.array(encoder.encode(Session(START, events)), np.float32)
            rank = int((scores >= scores[session[at]]).sum())
            expected.append(1 / rank if rank <= held_out.TOP else 0.0)
    corpus = a_corpus([*rows, [29]])
    order = [corpus.listings.row[f"l{row}"] for row in range(30)]
    placed = np.zeros_like(vectors)
    placed[order] = vectors
    assert held_out.mrr(placed, corpus, learned) == pytest.approx(np.mean(expected))


def test_settings_are_read_as_what_they_are_and_wrong_ones_are_refused() -> None:
    assert configured("skip-gram", {"window": "3", "learning_rate": "0.5"}) == SkipGram(
        window=3, learning_rate=0.5
    )
    with pytest.raises(UserError, match=r"no setting `windows`; it has .*window"):
        configured("skip-gram", {"windows": 3})
    with pytest.raises(UserError, match=r"`window` must be .*int.*, not 'three'"):
        configured("skip-gram", {"window": "three"})
    with pytest.raises(UserError, match="`dimensions` must be"):
        configured("skip-gram", {"dimensions": 1})
    with pytest.raises(UserError, match="ncf: `vectors` must be gmf or dot, not 'foo'"):
        configured("ncf", {"vectors": "foo"})


@pytest.mark.parametrize(
    "name", [name for name, method in METHODS.items() if "learning_rate" in method.fields]
)
def test_a_learning_rate_that_leads_nowhere_is_refused(name: str) -> None:
    for rate in ("inf", "nan", "1e6", "0"):
        with pytest.raises(UserError, match=r"`learning_rate` must be"):
            configured(name, {"learning_rate": rate})


def test_a_training_that_diverges_says_so() -> None:
    run = Run(np.random.default_rng(0))
    with pytest.raises(
        UserError, match="the training diverges, its loss is nan; take a smaller learning_rate"
    ):
        run.step(float("nan"), 1, 1, 1)


def test_every_method_has_defaults_for_all_its_settings() -> None:
    for name, method in METHODS.items():
        assert configured(name, {}) == method.settings()
