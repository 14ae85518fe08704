from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.datasets import formats
from models.evaluation import lists, tuning, visits
from models.evaluation.decayed_rules import DecayedRules
from models.evaluation.hit_rate import hits
from models.evaluation.item_knn import ItemKNN
from models.evaluation.methods import BASELINES, Method
from models.evaluation.mrr import reciprocal
from models.evaluation.popularity import Popularity, RecentPopularity, SeenFirst
from models.evaluation.positions import Positions, positions
from models.evaluation.recommending import REPEATS, Repeats, recommend
from models.evaluation.sequential_rules import SequentialRules
from models.evaluation.v_sknn import VSKNN
from models.evaluation.visits import Visits
from models.events import Click

HOUR = 3_600_000


def made(sequences: Sequence[str], step: int = HOUR) -> Visits:
    """Visits whose listings are letters, one after another, a click each `step`."""
    names = [(visit, letter) for visit, letters in enumerate(sequences) for letter in letters]
    return visits.gather(
        (
            Click(event_id=f"{at:09d}", user_id=f"u{visit}", timestamp=at * step, listing_id=letter),
            f"s{visit}",
        )
        for at, (visit, letter) in enumerate(names)
    )


def scores(method: Method, train: Sequence[str], clicked: str) -> dict[str, float]:
    """What is scored above nothing after the clicks, by letter."""
    of = made(train)
    asked = positions(made([clicked + of.listings[0]]), of)
    row = method.fit(of)(asked)[-1]
    return {of.listings[at]: pytest.approx(row[at]) for at in np.flatnonzero(row > 0)}


def test_popularity_counts_clicks() -> None:
    assert scores(Popularity(), ["aab", "ac"], "b") == {"a": 3, "b": 1, "c": 1}


def test_half_of_a_click_is_left_after_the_half_life() -> None:
    # The last visit begins at hour 3: the clicks of the one before are 3, 2 and 1 hours older.
    assert scores(RecentPopularity(2.0), ["aba", "cb"], "b") == {"a": 2**-1.5 + 2**-0.5, "b": 0.5 + 1, "c": 1}


def test_a_visit_that_goes_on_for_days_does_not_decide_what_is_popular() -> None:
    late = [("v", 0, "b"), ("w", 1, "b"), ("x", 2, "a"), ("x", 999, "c"), ("y", 3, "b"), ("z", 4, "b")]
    train = visits.gather(
        (Click(event_id=f"{user}{hour}", user_id=user, timestamp=hour * HOUR, listing_id=listing), user)
        for user, hour, listing in late
    )
    asked = positions(made(["ab"]), train)
    [row] = recommend(RecentPopularity(1.0).fit(train), asked, 3, ["all"])["all"]
    assert [train.listings[item] for item in row] == ["b", "c", "a"]


def test_what_was_seen_comes_first_the_most_recent_on_top() -> None:
    train = made(["aaaab", "bcbd"])
    asked = positions(made(["dcdb"]), train)
    listed = recommend(SeenFirst().fit(train), asked, 4, ["all"])["all"]
    assert ["".join(train.listings[item] for item in row) for row in listed] == ["dabc", "cdab", "dcab"]


def test_sequential_rules_count_what_follows_by_distance() -> None:
    train = ["abca", "aab"]
    assert scores(SequentialRules(steps=1), train, "a") == {"b": 2, "a": 1}
    assert scores(SequentialRules(steps=2), train, "a") == {"b": 1 + 1 + 1 / 2, "a": 1, "c": 1 / 2}
    assert scores(SequentialRules(steps=9), train, "xab") == {"c": 1, "a": 1 / 2}


def test_decayed_rules_add_up_what_all_clicks_vote() -> None:
    train = ["abc", "cd"]
    plain = DecayedRules(decay=0.6, backward=0.5, share=False)
    from_a = {"b": 1.0, "c": 1 / 2}
    from_c = {"d": 1.0, "b": 1 / 2, "a": 1 / 4}
    assert scores(plain, train, "a") == from_a
    assert scores(plain, train, "c") == from_c
    assert scores(plain, train, "ac") == {"a": 1 / 4, "b": 1 / 2 + 0.6, "c": 0.6 / 2, "d": 1.0}
    # An unknown listing makes nothing older.
    assert scores(plain, train, "axc") == scores(plain, train, "ac")
    shared = DecayedRules(decay=0.6, backward=0.5, share=True)
    assert scores(shared, train, "c") == {name: votes / 1.75 for name, votes in from_c.items()}


def test_decayed_rules_reach_so_far_and_may_leave_a_listing_to_others() -> None:
    train = ["aaba"]
    assert scores(DecayedRules(backward=0.0, share=False, steps=1), train, "a") == {"a": 1, "b": 1}
    assert scores(DecayedRules(backward=0.0, share=False, steps=2, itself=False), train, "a") == {
        "b": 1 + 1 / 2
    }
    assert scores(DecayedRules(backward=0.0, share=True, itself=False), train, "a") == {"b": 1}


def test_item_knn_is_the_regularised_cosine_of_the_listings_visits() -> None:
    train = ["aab", "ab", "ac", "cb"]
    assert scores(ItemKNN(regularisation=0.0), train, "a") == {
        "b": 2 / math.sqrt(3 * 3),
        "c": 1 / math.sqrt(3 * 2),
    }
    assert scores(ItemKNN(regularisation=20.0), train, "ba")["b"] == 2 / math.sqrt(23 * 23)


def test_v_sknn_lets_the_nearest_visits_vote() -> None:
    train = ["abx", "bcy", "az"]
    # After a, b: a weighs 1/2, b 1. abx is 1.5 like it, bcy 1, az 1/2; b was clicked last, a one step before.
    votes = {"abx": 1.5 * 0.9, "bcy": 1.0 * 0.9, "az": 0.5 * 0.8}
    wanted = Counter[str]()
    for visit, vote in votes.items():
        wanted.update(dict.fromkeys(visit, vote))  # type: ignore[misc]
    assert scores(VSKNN(idf=False), train, "ab") == wanted
    idf = {letter: math.log(3 / sum(letter in visit for visit in train)) for letter in wanted}
    assert scores(VSKNN(idf=True), train, "ab") == {letter: wanted[letter] * idf[letter] for letter in wanted}


def test_v_sknn_compares_the_newest_visits_and_hears_the_nearest() -> None:
    train = ["ap", "abq", "ar"]
    assert scores(VSKNN(sample=2, idf=False), train, "a").keys() == {"a", "b", "q", "r"}
    assert scores(VSKNN(neighbours=1, idf=False), train, "ba").keys() == {"a", "b", "q"}
    assert scores(VSKNN(neighbours=1, idf=False), train, "a").keys() == {"a", "r"}  # of equals the newest


def test_a_listing_clicked_again_weighs_by_its_last_place() -> None:
    assert scores(VSKNN(idf=False), ["ap", "bq"], "aba")["p"] == 1.0 * 0.9
    assert scores(VSKNN(idf=False), ["ap", "bq"], "aba")["q"] == 2 / 3 * 0.8


LETTERS = st.text("abcde", min_size=1, max_size=5)


def naive(settings: VSKNN, train: Sequence[str], clicked: str) -> dict[str, float]:
    clicked = "".join(letter for letter in clicked if letter in "".join(train))
    weight = {
        letter: place / len(clicked) if settings.linear else 1.0 for place, letter in enumerate(clicked, 1)
    }
    near = [(index, visit) for index, visit in enumerate(train) if set(visit) & set(clicked)]
    near = sorted(near, reverse=True)[: settings.sample]
    alike = [
        (sum(weight[letter] for letter in set(visit) & set(clicked)), -at, visit)
        for at, (_, visit) in enumerate(near)
    ]
    votes = Counter[str]()
    for similarity, _, visit in sorted(alike, key=lambda one: (-round(one[0], 9), -one[1]))[
        : settings.neighbours
    ]:
        age = next(age for age, letter in enumerate(reversed(clicked)) if letter in visit)
        for letter in set(visit):
            votes[letter] += similarity * max(0.0, 1 - 0.1 * (age + 1))  # type: ignore[assignment]
    return {letter: pytest.approx(vote) for letter, vote in votes.items() if vote > 0}


@given(st.lists(LETTERS, min_size=1, max_size=8), LETTERS, st.booleans())
def test_v_sknn_is_what_a_naive_program_gives(train: list[str], clicked: str, linear: bool) -> None:
    settings = VSKNN(neighbours=9, sample=4, idf=False, linear=linear)
    assert scores(settings, train, clicked) == naive(settings, train, clicked)


@given(st.lists(LETTERS, min_size=1, max_size=6), LETTERS, st.integers(1, 4))
def test_decayed_rules_are_what_a_naive_program_gives(train: list[str], clicked: str, steps: int) -> None:
    votes = Counter[str]()
    for age, letter in enumerate(reversed([one for one in clicked if any(one in visit for visit in train)])):
        for visit in train:
            for at, other in product(range(len(visit)), repeat=2):
                if visit[at] == letter and 0 < abs(other - at) <= steps:
                    votes[visit[other]] += 0.6**age * (1.0 if other > at else 0.5) / abs(other - at)  # type: ignore[assignment]
    wanted = {letter: pytest.approx(vote) for letter, vote in votes.items()}
    assert scores(DecayedRules(0.6, 0.5, share=False, steps=steps), train, clicked) == wanted


def test_what_was_clicked_may_be_left_out_of_the_lists() -> None:
    train = made(["aabbcd"])
    asked = positions(made(["abac"]), train)
    found = recommend(Popularity().fit(train), asked, 4, REPEATS)

    def texts(repeats: Repeats) -> list[str]:
        return ["".join(train.listings[item] if item >= 0 else "-" for item in row) for row in found[repeats]]

    assert texts("all") == ["abcd", "abcd", "abcd"]
    assert texts("all-but-last") == ["bcd-", "acd-", "bcd-"]
    assert texts("none") == ["bcd-", "cd--", "cd--"]


def test_the_size_of_the_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    sequences = ["".join(random.choice(list("abcdefgh"), 5)) for _ in range(40)]
    train, test = made(sequences[:30]), made(sequences[30:])
    asked = positions(test, train)

    def all_of_them() -> list[list[list[int]]]:
        return [
            recommend(grid[0].fit(train), asked, len(train.listings), ["all"])["all"].tolist()
            for grid in BASELINES.values()
        ]

    whole = all_of_them()
    monkeypatch.setattr("models.evaluation.recommending.CELLS", 3 * len(train.listings))
    assert all_of_them() == whole


@pytest.mark.parametrize("name", BASELINES)
def test_after_unknown_clicks_every_baseline_recommends_by_popularity(name: str) -> None:
    train = made(["abb", "bc", "bd"], step=0)
    asked = positions(made(["xa"]), train)
    found = recommend(BASELINES[name][0].fit(train), asked, 4, ["none"])["none"]
    assert ["".join(train.listings[item] for item in row) for row in found] == ["bacd"]


def test_settings_are_compared_on_the_last_visits_by_what_came_before_them() -> None:
    train = made(["ab"] * 600 + ["ac"] * 80)
    validation = tuning.part(train, np.random.default_rng(0))
    assert validation is not None
    assert validation.earlier.last < validation.later.source.first
    assert len(validation.later) == 68  # a tenth of 680 visits, all of one target
    chosen = tuning.choose([RecentPopularity(1000.0), RecentPopularity(1.0)], validation)
    assert chosen == (RecentPopularity(1.0), "all")


def test_the_first_settings_stand_where_there_is_too_little_to_choose_on() -> None:
    assert tuning.part(made(["ab"] * 100), np.random.default_rng(0)) is None
    assert tuning.part(made(["a"] * 100), np.random.default_rng(0)) is None
    assert tuning.choose(BASELINES["v-sknn"], None) == (VSKNN(), "all")


@pytest.fixture(scope="module")
def serenade() -> tuple[Visits, Positions]:
    if "INSESSION_DATA" not in os.environ:
        pytest.skip("INSESSION_DATA is not set")
    path = Path(os.environ["INSESSION_DATA"]) / "serenade" / "example.zip"
    train = visits.gather(formats.entries([f"{path}:train.txt"]))
    test = visits.gather(formats.entries([f"{path}:{name}.txt" for name in ("valid", "test")]))
    return train, positions(test, train)


@pytest.mark.data
@pytest.mark.parametrize(
    ("method", "repeats", "hit_rate", "mrr"),
    [
        (Popularity(), "all", 0.010, 0.002),
        (SequentialRules(), "all", 0.481, 0.262),
        (DecayedRules(0.6, 0.5, share=True, itself=False), "all-but-last", 0.618, 0.296),
        (VSKNN(200, 1000), "all", 0.664, 0.242),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str | float) else str(value),
)
def test_serenades_example_gives_what_is_known_of_it(
    serenade: tuple[Visits, Positions], method: Method, repeats: Repeats, hit_rate: float, mrr: float
) -> None:
    train, asked = serenade
    assert (len(train.items), len(train.listings), len(asked)) == (113_601, 18_009, 2_052)
    found = recommend(method.fit(train), asked, len(train.listings), [repeats])[repeats]
    ranks = lists.ranks(found, asked.targets)
    assert hits(ranks, 20).mean() == pytest.approx(hit_rate, abs=0.005)
    assert reciprocal(ranks, 20).mean() == pytest.approx(mrr, abs=0.005)
