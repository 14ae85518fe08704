from __future__ import annotations

import numpy as np
import pytest
import torch

from models.features import FEATURES, FREQUENCY, KNOTS, POSITION, SIMILARITY
from models.training import ranking
from models.training.ranking import Example, Ranking


def searches(number: int, pull: float, seed: int = 0) -> list[Example]:
    """Lists of eight in which similarity, `pull` strong, and nothing else decides."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        matrix = np.zeros((len(FEATURES), 8), np.float32)
        matrix[POSITION] = np.log2(np.arange(1, 9))
        matrix[SIMILARITY] = random.uniform(-0.5, 0.9, 8)
        utility = pull * matrix[SIMILARITY] + random.gumbel(size=8)
        found.append(Example(matrix, int(utility.argmax())))
    return found


def test_it_learns_what_decides_and_leaves_alone_what_does_not() -> None:
    made = ranking.train(searches(1_500, 4.0), Ranking())
    grid = FEATURES[SIMILARITY].low + FEATURES[SIMILARITY].step * np.arange(KNOTS)
    inside = (grid > -0.45) & (grid < 0.85)
    slope = np.polyfit(grid[inside], made.weights[SIMILARITY][inside], 1)[0]
    assert slope == pytest.approx(4.0, rel=0.2)
    assert np.ptp(made.weights[POSITION][:7]) < 0.6
    assert made.weights[FREQUENCY] == pytest.approx(0, abs=1e-3)


def test_it_ranks_later_searches_better_than_the_callers_order() -> None:
    made = ranking.train(searches(500, 4.0), Ranking())
    later = searches(300, 4.0, seed=1)
    ours = np.mean([(-made.scores(one.features)).argsort().tolist().index(one.chosen) for one in later])
    shown = np.mean([one.chosen for one in later])
    assert ours < 0.6 * shown


def test_outside_of_what_was_seen_a_curve_stays_level() -> None:
    made = ranking.train(searches(500, 4.0), Ranking())
    curve = made.weights[SIMILARITY]
    assert curve[-1] == curve[-2] == curve[-3]
    assert curve[1] == curve[2] == curve[5]
    assert made.weights[POSITION][-1] == made.weights[POSITION][8]


def test_the_value_of_what_is_not_known_stands_apart() -> None:
    random = np.random.default_rng(0)
    found = []
    for _ in range(800):
        matrix = np.zeros((len(FEATURES), 6), np.float32)
        matrix[SIMILARITY] = np.where(random.random(6) < 0.5, FEATURES[SIMILARITY].low, 0.5)
        found.append(Example(matrix, int((2.0 * (matrix[SIMILARITY] < 0) + random.gumbel(size=6)).argmax())))
    curve = ranking.train(found, Ranking()).weights[SIMILARITY]
    assert curve[0] - curve[17] == pytest.approx(2.0, abs=0.4)
    assert curve[1] == pytest.approx(curve[17], abs=0.05)


def test_the_loss_is_the_listwise_softmax() -> None:
    scores = torch.tensor([1.0, 2.0, 500.0, -3.0, 0.0], requires_grad=True)
    lists, chosen = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([1, 4])
    first, second = torch.log_softmax(scores[:3], 0)[1], torch.log_softmax(scores[3:], 0)[1]
    value = ranking.loss(scores, lists, chosen)
    assert value.item() == pytest.approx(-(first + second).item())
    (ours,) = torch.autograd.grad(value, scores)
    (theirs,) = torch.autograd.grad(-(first + second), scores)
    torch.testing.assert_close(ours, theirs)


def test_the_same_searches_give_the_same_bits() -> None:
    torch.set_num_threads(1)
    one, two = (ranking.train(searches(200, 2.0), Ranking()) for _ in range(2))
    assert one.weights.tobytes() == two.weights.tobytes()


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="no searches"):
        ranking.train([], Ranking())
