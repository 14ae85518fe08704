from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.training import pairs
from models.training.corpus import BOOKING, Corpus
from models.training.pairs import Sessions
from tests.made import a_corpus

TOKENS = np.array([0, 1, 2, 1, 3, 4], np.int32)
STARTS = np.array([0, 4, 5, 6])
SECONDS = [10, 40, np.nan, 5, 3, np.nan]


def visits(seconds: list[float] | None = None, booked: tuple[int, ...] = ()) -> Corpus:
    """Three sessions, how long each click was, and which of them were bookings."""
    made = a_corpus([[0, 1, 2, 1], [3], [4]])
    kinds = np.where(np.isin(np.arange(6), booked), BOOKING, 0).astype(np.uint8)
    return replace(made, kinds=kinds, seconds=np.array(seconds or [np.nan] * 6, np.float32))


def listed(sessions: Sessions) -> list[list[int]]:
    return [part.tolist() for part in np.split(sessions.tokens, sessions.starts[1:-1])]


def test_clicks_known_to_be_short_are_dropped_and_bookings_never() -> None:
    kept = pairs.read(visits(SECONDS, booked=(3,)), 0, 3, 30.0, 0)
    assert listed(kept) == [[1, 2, 1], [], [4]]
    assert kept.booked.tolist() == [1, -1, -1]


def test_sessions_left_with_one_click_are_dropped_where_two_are_the_fewest() -> None:
    corpus = visits(SECONDS)
    assert listed(pairs.read(corpus, 0, 3, 0.0, 2)) == [[0, 1, 2, 1]]
    assert listed(pairs.read(corpus, 0, 3, 0.0, 1)) == [[0, 1, 2, 1], [3], [4]]
    assert listed(pairs.read(corpus, 0, 3, 30.0, 1)) == [[1, 2], [4]]


def test_a_session_stands_for_what_it_booked_last() -> None:
    assert pairs.read(visits(booked=(1, 2, 4)), 0, 3, 0.0, 0).booked.tolist() == [2, 3, -1]


def test_sessions_shuffle_as_wholes_and_booked_ones_stand_several_times() -> None:
    lengths = np.arange(1, 21)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    booked = np.where(np.arange(20) % 5 == 0, np.arange(20), -1).astype(np.int32)
    sessions = Sessions(np.repeat(np.arange(20, dtype=np.int32), lengths), starts, booked)
    made = pairs.shuffled(sessions, None, 3, np.random.default_rng(0))
    order = [part[0] for part in listed(made)]
    assert order != sorted(order)
    assert sorted(order) == sorted([k for k in range(20) for _ in range(3 if k % 5 == 0 else 1)])
    assert all(part == [part[0]] * (part[0] + 1) for part in listed(made))
    assert made.booked.tolist() == [k if k % 5 == 0 else -1 for k in order]


def test_frequent_listings_are_dropped_by_the_square_root_of_their_share() -> None:
    counts = np.array([9_000, 900, 100, 0])
    np.testing.assert_allclose(pairs.chances(counts, 0.01), [(1 / 90) ** 0.5, (1 / 9) ** 0.5, 1, 1])
    tokens = np.repeat(np.arange(3, dtype=np.int32), counts[:3])
    sessions = Sessions(tokens, np.arange(0, 10_001, 10), np.full(1_000, -1, np.int32))
    made = pairs.shuffled(sessions, pairs.chances(counts, 0.01), 1, np.random.default_rng(0))
    assert len(made.starts) == 1_001
    np.testing.assert_allclose(np.bincount(made.tokens), [949, 300, 100], rtol=0.1)


def test_contexts_are_near_of_the_same_session_and_another_listing() -> None:
    sessions = Sessions(TOKENS, STARTS, np.array([-1, -1, -1], np.int32))
    found: set[tuple[int, int]] = set()
    for seed in range(20):
        found |= set(zip(*(each.tolist() for each in positives(sessions, 2, seed)), strict=True))
    assert found == {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}


def test_a_nearer_context_counts_more_often() -> None:
    sessions = Sessions(
        np.arange(4_000, dtype=np.int32), np.arange(0, 4_001, 4), np.full(1_000, -1, np.int32)
    )
    centre, context = positives(sessions, 3, 0)
    far = np.bincount(np.abs(centre - context), minlength=4)
    assert far[0] == 0
    assert far[1] == 6_000  # all of them: the reach is one at least
    np.testing.assert_allclose(far[2:], [4_000 * 2 / 3, 2_000 / 3], rtol=0.1)


def test_what_was_booked_is_a_context_of_each_other_click_wherever_it_stands() -> None:
    tokens = np.array([0, 1, 2, 3, 4, 5, 6], np.int32)
    sessions = Sessions(tokens, np.array([0, 5, 7]), np.array([4, -1], np.int32))
    centre, context = positives(sessions, 1, 0)
    near = [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2), (3, 4), (4, 3), (5, 6), (6, 5)]
    booked = [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert sorted(zip(centre.tolist(), context.tolist(), strict=True)) == sorted(near + booked)


def positives(sessions: Sessions, window: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Of all clicks, found in two goes."""
    random, half = np.random.default_rng(seed), len(sessions.tokens) // 2
    one = pairs.positives(sessions, 0, half, window, random)
    two = pairs.positives(sessions, half, len(sessions.tokens), window, random)
    return np.concatenate([one[0], two[0]]), np.concatenate([one[1], two[1]])
