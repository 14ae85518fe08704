from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import rank as rank_
from models.features import CALLER_SCORE, FEATURES, FREQUENCY, KNOTS, SIMILARITY
from models.rank import Candidate
from models.ranker import Ranker
from models.sessions import WINDOWS
from models.visitor import Visitor
from tests.made import START, a_bundle, act, show, user_in

BUNDLE = a_bundle()
USER = user_in(BUNDLE, show(0, "l3", "l7", "l9"), act(1, "l7", search_id="s0"), act(2, "l9", search_id="s0"))
NOW = START + 3_000


@dataclass
class Ranked:
    """A ranking, in lists."""

    outcome: str
    order: list[int]
    scores: list[float] | None
    known: list[bool]
    contributions: np.ndarray | None


def rank(*arguments: object, **named: object) -> Ranked:
    ranked = rank_.rank(*arguments, **named)  # type: ignore[arg-type]
    scores = ranked.scores.tolist() if ranked.scores is not None else None
    known = (rank_.look_up(arguments[2], arguments[0]).rows >= 0).tolist()  # type: ignore[arg-type]
    return Ranked(ranked.outcome, ranked.order.tolist(), scores, known, ranked.contributions)


def candidates(*names: str) -> list[Candidate]:
    return [Candidate(name) for name in names]


LIST = candidates(*(f"l{row}" for row in range(20)))


def test_what_was_acted_on_last_comes_up() -> None:
    ranked = rank(BUNDLE, Visitor.of(USER), LIST, timestamp=NOW)
    assert ranked.outcome == "ranked"
    assert ranked.order.index(9) < 9
    assert sorted(ranked.order) == list(range(20))
    assert ranked.scores is not None
    assert [ranked.scores[index] for index in ranked.order] == sorted(ranked.scores, reverse=True)


def test_contributions_add_up_to_the_scores() -> None:
    ranked = rank(BUNDLE, Visitor.of(USER), [*LIST, Candidate("x")], timestamp=NOW, explain=True)
    assert ranked.contributions is not None
    assert ranked.scores is not None
    assert ranked.contributions.shape == (21, len(FEATURES))
    np.testing.assert_allclose(ranked.contributions.sum(axis=1)[:20], ranked.scores[:20], atol=1e-5)
    assert not ranked.contributions[20].any()
    assert rank(BUNDLE, Visitor.of(USER), LIST, timestamp=NOW).contributions is None


def test_an_unknown_user_gets_the_callers_order() -> None:
    ranked = rank(BUNDLE, None, LIST, timestamp=NOW)
    assert (ranked.outcome, ranked.order, ranked.scores) == ("unknown-user", list(range(20)), None)
    assert ranked.known == [True] * 20


def test_a_session_is_active_up_to_the_gap_after_its_last_event_and_then_history() -> None:
    last = USER.state.sessions[-1].last
    assert rank(BUNDLE, Visitor.of(USER), LIST, timestamp=last + WINDOWS.gap).outcome == "ranked"
    later = rank(BUNDLE, Visitor.of(USER), LIST, timestamp=last + WINDOWS.gap + 1, explain=True)
    assert later.outcome == "ranked"
    assert later.contributions is not None
    assert not later.contributions[:, FREQUENCY].any()
    ranked = rank(BUNDLE, Visitor.of(USER), LIST, timestamp=last + WINDOWS.history + 1)
    assert (ranked.outcome, ranked.order) == ("no-session", list(range(20)))
    none = msgspec.structs.replace(USER, state=msgspec.structs.replace(USER.state, sessions=()))
    assert rank(BUNDLE, Visitor.of(none), LIST, timestamp=NOW).outcome == "no-session"


def test_only_unknown_listings_or_none_at_all_stay_as_they_are() -> None:
    for given_list in (candidates("x", "y"), []):
        ranked = rank(BUNDLE, Visitor.of(USER), given_list, timestamp=NOW)
        assert (ranked.outcome, ranked.order) == ("no-known-candidates", list(range(len(given_list))))


def test_a_vector_of_another_bundle_is_not_used_and_it_says_so() -> None:
    stale = msgspec.structs.replace(USER, bundle="another")
    ranked = rank(BUNDLE, Visitor.of(stale), LIST, timestamp=NOW, explain=True)
    assert ranked.outcome == "ranked"
    assert ranked.order.index(9) < 9
    blank = msgspec.structs.replace(USER, vector=None)
    assert ranked.scores == rank(BUNDLE, Visitor.of(blank), LIST, timestamp=NOW).scores
    assert ranked.scores != rank(BUNDLE, Visitor.of(USER), LIST, timestamp=NOW).scores


def test_a_vector_of_another_length_is_never_multiplied() -> None:
    stale = msgspec.structs.replace(USER, bundle="another", vector=(1.0, 0.0))
    assert rank(BUNDLE, Visitor.of(stale), LIST, timestamp=NOW).outcome == "ranked"


@given(st.lists(st.integers(0, 80), max_size=40, unique=True))
def test_unknown_listings_keep_their_places_and_scores_fall_along_the_order(rows: list[int]) -> None:
    given_list = candidates(*(f"l{row}" for row in rows))
    ranked = rank(BUNDLE, Visitor.of(USER), given_list, timestamp=NOW)
    assert sorted(ranked.order) == list(range(len(rows)))
    for index, row in enumerate(rows):
        assert ranked.known[index] is (row < 50)
        if row >= 50:
            assert ranked.order[index] == index
    if ranked.scores is not None:
        falling = [ranked.scores[index] for index in ranked.order]
        assert falling == sorted(falling, reverse=True)


def test_equal_scores_keep_the_callers_order() -> None:
    flat = a_bundle(learned=Ranker(np.zeros((len(FEATURES), KNOTS), np.float32)))
    assert rank(flat, Visitor.of(user_in(flat, act(0, "l30"))), LIST, timestamp=NOW).order == list(range(20))


def test_the_same_listing_twice_is_ranked_twice() -> None:
    ranked = rank(BUNDLE, Visitor.of(USER), candidates("l1", "l9", "l1", "l9"), timestamp=NOW)
    assert sorted(ranked.order) == [0, 1, 2, 3]


def test_the_callers_score_counts_only_where_every_candidate_has_one() -> None:
    weights = np.zeros((len(FEATURES), KNOTS), np.float32)
    weights[CALLER_SCORE] = np.arange(KNOTS)
    scored = a_bundle(learned=Ranker(weights))
    user = user_in(scored, act(0, "l30"))
    given_list = [Candidate("l1", 1.0), Candidate("l2", 5.0), Candidate("l3", 3.0)]
    assert rank(scored, Visitor.of(user), given_list, timestamp=NOW).order == [1, 2, 0]
    assert rank(scored, Visitor.of(user), [*given_list, Candidate("l4")], timestamp=NOW).order == [0, 1, 2, 3]


def test_similarity_alone_ranks_by_the_dot_product() -> None:
    weights = np.zeros((len(FEATURES), KNOTS), np.float32)
    weights[SIMILARITY] = np.arange(KNOTS)
    near = a_bundle(learned=Ranker(weights))
    user = user_in(near, act(0, "l30"))
    ranked = rank(near, Visitor.of(user), LIST, timestamp=NOW)
    similarity = near.vectors[:20] @ np.array(user.vector, np.float32)
    assert ranked.order == np.argsort(-similarity, kind="stable").tolist()
    assert ranked.scores == pytest.approx((similarity + 1.2) / 0.1, abs=1e-3)
