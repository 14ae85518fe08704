from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.training import ncf
from models.training.interactions import Interactions
from models.training.ncf import NeuralCollaborativeFiltering
from models.training.noise import Unigram
from models.training.run import Run
from tests.made import a_corpus
from tests.planted import agreement, planted

SMALL = NeuralCollaborativeFiltering(dimensions=8, epochs=10, block=128, learning_rate=0.05)


def test_it_finds_planted_groups_with_either_model_and_measures_both() -> None:
    run = Run(np.random.default_rng(1))
    assert agreement(ncf.train(planted(each=20, sessions=800), SMALL, run)) > 0.9
    assert run.metrics["left_out"] == 80
    for name in ("neumf", "dot"):
        # Ten of 101 by chance, and a third of the others is of the same group.
        assert run.metrics[f"{name}_hr@10"] > 0.25
        assert 0.05 < run.metrics[f"{name}_ndcg@10"] < run.metrics[f"{name}_hr@10"]
    plain = NeuralCollaborativeFiltering(
        dimensions=8, epochs=15, block=128, vectors="dot", learning_rate=0.05
    )
    assert agreement(ncf.train(planted(), plain, Run(np.random.default_rng(1)))) == 1.0


def test_the_listing_looked_for_is_counted_where_it_is_among_the_first_ten() -> None:
    scores = np.zeros((3, 101), np.float32)
    scores[:, 1:] = -1
    scores[1, 1:10] = 1  # nine before it
    scores[2, 1:11] = 0  # ten with the same score
    found = ncf.measured("dot", scores)
    assert found["dot_hr@10"] == pytest.approx(2 / 3)
    assert found["dot_ndcg@10"] == pytest.approx((1 + 1 / math.log2(11)) / 3)


def test_what_is_left_out_is_not_learned_from_and_not_among_the_others() -> None:
    corpus = a_corpus([(0, 1, 2), (2, 3, 1), (0, 3, 2), (4, 0, 1)] * 10)
    matrix = Interactions(corpus, "session")
    asked, wanted = ncf._left_out(corpus, matrix, np.random.default_rng(0))
    assert len(asked) == 4
    assert wanted.tolist() == corpus.tokens[corpus.starts[asked + 1] - 1].tolist()
    matrix.leave_out(asked, wanted)
    entries = {
        pair
        for block in matrix.blocks(7, np.random.default_rng(0))
        for pair in zip(block.rows.tolist(), block.listings.tolist(), strict=True)
    }
    assert len(entries) == matrix.total == 116
    assert not entries & set(zip(asked.tolist(), wanted.tolist(), strict=True))
    noise = Unigram(corpus.counts, 0.0)
    others = ncf._others(corpus, matrix, asked, noise, np.random.default_rng(0))
    for row, drawn in zip(asked.tolist(), others, strict=True):
        assert not set(drawn.tolist()) & set(corpus.tokens[3 * row : 3 * row + 3].tolist())


def test_scores_are_those_of_the_papers() -> None:
    random = np.random.default_rng(0)
    tables = ncf._tables(
        3, 4, NeuralCollaborativeFiltering(dimensions=2, layers=1), random, torch.device("cpu")
    )
    for tensor in tables.values():
        tensor.copy_(torch.from_numpy(random.normal(size=tuple(tensor.shape)).astype(np.float32)))
    who, what = torch.tensor([1]), torch.tensor([[3, 0]])
    t = {name: tensor.numpy() for name, tensor in tables.items()}

    def take(name: str, which: torch.Tensor) -> torch.Tensor:
        return tables[name][which]

    for at, listing in enumerate((3, 0)):
        gmf = t["gmf.rows"][1] * t["gmf.listings"][listing]
        both = np.concatenate([t["mlp.rows"][1], t["mlp.listings"][listing]])
        mlp = np.maximum(both @ t["mlp.0"] + t["mlp.0.bias"], 0)
        neumf = np.concatenate([gmf, mlp]) @ t["output"] + t["output.bias"]
        assert ncf.neumf(take, tables.__getitem__, 1, who, what)[0, at].item() == pytest.approx(
            neumf, rel=1e-5
        )
        dot = t["dot.rows"][1] @ t["dot.listings"][listing] + t["bias"]
        dot += t["bias.rows"][1, 0] + t["bias.listings"][listing, 0]
        assert ncf.dot(take, tables.__getitem__, who, what)[0, at].item() == pytest.approx(dot, rel=1e-5)
