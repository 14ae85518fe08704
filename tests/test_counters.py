from __future__ import annotations

import sys

import numpy as np
import pytest

from models.errors import UserError
from models.evaluation import counters
from models.evaluation.counters import NAMES
from models.evaluation.rerank import Choice
from models.events import Result, Search
from models.rank import Candidate
from models.visitor import Visitor
from tests.made import START, a_bundle, act, show, user_in


def choice(*events: object, prices: tuple[float | None, ...] = (100.0, 50.0, 200.0, None)) -> Choice:
    """A search of l0 to l3, a minute after START, by somebody who did this before."""
    names = [f"l{row}" for row in range(4)]
    results = tuple(
        Result(listing_id=name, position=place, price=price)
        for place, (name, price) in enumerate(zip(names, prices, strict=True), 1)
    )
    search = Search(event_id="s", user_id="u", timestamp=START + 60_000, results=results)
    visitor = Visitor.of(user_in(a_bundle(), *events)) if events else None  # type: ignore[arg-type]
    return Choice(search, 0, [Candidate(name) for name in names], [1, 2, 3, 4], 2, visitor)


def column(of: Choice, name: str) -> list[float]:
    return counters.features(of)[:, NAMES.index(name)].tolist()


def test_counters_are_of_the_visit_before_the_search() -> None:
    of = choice(
        show(0, "l0", "l1"), act(1, "l1"), act(2, "l0", "wishlist"), show(3, "l1"), act(4, "l1"), act(5, "l0", "rejection")
    )  # fmt: skip
    assert column(of, "times") == [1, 2, 0, 0]
    assert column(of, "clicks") == [0, 2, 0, 0]
    assert column(of, "since")[:2] == [1, 0]
    assert np.isnan(column(of, "since")[2:]).all()
    assert column(of, "newest") == [0, 1, 0, 0]
    assert column(of, "below") == [-1, 0, 1, 2]
    assert column(of, "shown") == [1, 2, 0, 0]
    assert column(of, "shown_before") == [0, 1, 0, 0]
    assert column(of, "visit_actions") == [3] * 4


def test_prices_are_compared_with_the_list_and_the_visit() -> None:
    of = choice(act(1, "l1"))
    assert column(of, "dearer_than_list")[:3] == pytest.approx([0, np.log(0.5), np.log(2)])
    assert column(of, "dearer_than_visit")[:3] == pytest.approx([np.log(2), 0, np.log(4)])
    assert np.isnan(column(of, "log_price")[3])
    assert np.isnan(column(choice(prices=(None,) * 4), "dearer_than_list")).all()


def test_nothing_is_known_of_a_new_visitor_but_the_list() -> None:
    of = choice()
    assert column(of, "place") == [1, 2, 3, 4]
    assert column(of, "times") == [0] * 4
    assert np.isnan(column(of, "below")).all()


def test_it_learns_that_what_was_clicked_is_chosen_and_one_seed_gives_one_order() -> None:
    random = np.random.default_rng(0)
    matrices, chosen = [], []
    for _ in range(200):
        at = int(random.integers(4))
        matrices.append(counters.features(choice(act(1, f"l{at}"))))
        chosen.append(at)
    learned = counters.train(matrices, chosen, 1)
    assert learned is not None
    for at in range(4):
        of = choice(act(1, f"l{at}"))
        assert learned.order(of)[0] == at
        again = counters.train(matrices, chosen, 1)
        assert again is not None
        assert again.order(of) == learned.order(of)


def test_of_too_few_nothing_is_learned_and_without_lightgbm_it_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (
        counters.train([counters.features(choice())] * (counters.FEWEST - 1), [0] * (counters.FEWEST - 1), 1)
        is None
    )
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(UserError, match=r"needs LightGBM: pip install 'insession\[evaluate\]'"):
        counters.train([], [], 1)
