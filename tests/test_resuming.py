"""What every method keeps: one seed gives the same bits, and a run that was ended goes on to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.listings import Listing
from models.training.content2vec import Content2Vec
from models.training.matrix_factorisation import MatrixFactorisation
from models.training.methods import METHODS
from models.training.ncf import NeuralCollaborativeFiltering
from models.training.run import Run
from models.training.session_encoder import SessionEncoder
from models.training.vbpr import Vbpr
from tests.planted import planted

CASES: dict[str, tuple[str, Any]] = {
    "bpr": ("matrix-factorisation", MatrixFactorisation(dimensions=4, epochs=3, block=64)),
    "squares": (
        "matrix-factorisation",
        MatrixFactorisation(dimensions=4, epochs=3, block=64, loss="weighted-squares", rows="user"),
    ),
    "ncf": ("ncf", NeuralCollaborativeFiltering(dimensions=4, epochs=3, block=64, learning_rate=0.05)),
    "content2vec": ("content2vec", Content2Vec(dimensions=8, epochs=3, block=64)),
    "session-encoder": ("session-encoder", SessionEncoder(dimensions=8, epochs=3, block=32, negatives=16)),
    "vbpr": ("vbpr", Vbpr(attribute="image", dimensions=4, epochs=3, block=64)),
}
KNOWN = [
    Listing(
        listing_id=f"l{row}",
        market=f"m{row % 2}",
        type=("flat", "room")[row // 9],
        price=50.0 + row,
        attributes={"text": f"word{row % 3} and more", "image": f"{row % 3 - 1} {row % 5} {row % 2}"},
    )
    for row in range(18)
]


class _Ended(Exception):
    pass


@pytest.mark.parametrize(("name", "settings"), CASES.values(), ids=CASES)
def test_one_seed_gives_the_same_bits_and_a_run_that_was_ended_goes_on_to_them(
    name: str, settings: Any, tmp_path: Path
) -> None:
    corpus, train = planted(sessions=60, known=KNOWN), METHODS[name].train

    def run(seed: int, folder: Path | None = None) -> Run:
        return Run(np.random.default_rng(seed), checkpoints=folder, what="this")

    whole = train(corpus, settings, run(1))
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    assert train(corpus, settings, run(1)).tobytes() == whole.tobytes()
    assert train(corpus, settings, run(2)).tobytes() != whole.tobytes()
    ended = run(1, tmp_path)

    def end(done: int, total: int, note: str) -> None:
        if note.startswith("epoch 3"):
            raise _Ended

    ended.on_progress = end
    with pytest.raises(_Ended):
        train(corpus, settings, ended)
    again = run(1, tmp_path)
    assert train(corpus, settings, again).tobytes() == whole.tobytes()
    assert len(again.curve) == 3
    assert again.curve[-1].loss < again.curve[0].loss
