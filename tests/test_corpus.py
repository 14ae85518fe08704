from __future__ import annotations

import math
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from models.events import Booking, Click, Event, Forget, Leave, Rejection
from models.listings import Listing, collect
from models.training import corpus as corpus_
from models.training.corpus import KINDS, Collector, Corpus, steps
from models.training.gathering import Gathering
from tests.made import MINUTE, START, a_corpus


def gathered(events: list[Event], session: str | None = None) -> Corpus:
    gathering = Gathering()
    for event in events:
        gathering.add(event, session)
    return gathering.corpus()


def click(at: float, listing: str, user: str = "u") -> Click:
    time = START + int(at * MINUTE)
    return Click(event_id=f"{user}{at}", user_id=user, timestamp=time, listing_id=listing)


def sessions(corpus: Corpus) -> list[list[str]]:
    names = [corpus.listings.ids[row] for row in corpus.tokens.tolist()]
    return [names[first:last] for first, last in pairwise(corpus.starts.tolist())]


def test_sessions_part_at_gaps_and_stand_in_the_order_in_which_they_end() -> None:
    events: list[Event] = [click(0, "a"), click(1, "z", "v"), click(30, "b"), click(61, "c"), click(62, "d")]
    corpus = gathered(events)
    assert sessions(corpus) == [["z"], ["a", "b"], ["c", "d"]]
    assert corpus.users[1] == corpus.users[2] != corpus.users[0]
    assert corpus.times.tolist() == [START + at * MINUTE for at in (1, 0, 30, 61, 62)]


def test_a_session_that_the_source_names_is_one_whatever_its_gaps() -> None:
    events: list[Event] = [click(at, name) for at, name in ((0, "a"), (45, "b"), (300, "c"))]
    assert sessions(gathered(events)) == [["a"], ["b"], ["c"]]
    assert sessions(gathered(events, "given")) == [["a", "b", "c"]]


def test_a_session_that_the_source_names_is_over_after_a_day_whoever_else_is_there() -> None:
    events: list[Event] = [click(0, "a"), click(60, "b"), click(27 * 60, "c")]
    assert sessions(gathered(events, "given")) == [["a", "b"], ["c"]]


def test_sessions_are_the_same_whenever_they_are_looked_for() -> None:
    random = np.random.default_rng(0)
    events: list[Event] = [
        click(at, f"l{random.integers(9)}", f"u{random.integers(5)}")
        for at in np.cumsum(random.exponential(4, 400)).tolist()
    ]
    once = gathered(events)
    gathering = Gathering()
    for event in events:
        gathering._until_sweep = 1  # after every event
        gathering.add(event)
    often = gathering.corpus()
    assert sorted(sessions(often)) == sorted(sessions(once))


def test_how_long_a_visitor_stayed_is_what_a_leave_says_or_the_time_to_the_next_event() -> None:
    opened = click(0, "a")
    left = Leave(event_id="x", user_id="u", timestamp=START + 9_000, of=opened.event_id, seconds=8.0)
    corpus = gathered([opened, left, click(1, "b"), click(1.5, "c")])
    assert corpus.seconds[:2].tolist() == [8.0, 30.0]
    assert math.isnan(corpus.seconds[2])


def test_steps_leave_out_repeats_rejections_and_what_is_too_short() -> None:
    booking = Booking(event_id="b", user_id="u", timestamp=START + 5 * MINUTE, listing_id="b")
    refused = Rejection(event_id="r", user_id="u", timestamp=START + 6 * MINUTE, listing_id="b")
    events = [click(0, "a"), click(1, "a"), click(2, "b"), booking, refused, click(0, "only", "v")]
    taken = steps(gathered(events))
    assert sessions(taken) == [["a", "b"]]
    assert [KINDS[kind] for kind in taken.kinds] == ["click", "booking"]
    assert taken.times.tolist() == [START, START + 2 * MINUTE]
    assert sessions(steps(gathered(events), shortest=1)) == [["only"], ["a", "b"]]


def test_steps_of_a_time_are_those_dated_within_it() -> None:
    corpus = a_corpus([(0, 1, 2, 3)])
    assert sessions(steps(corpus, before=START + 2 * MINUTE)) == [["l0", "l1"]]
    assert sessions(steps(corpus, since=START + 2 * MINUTE)) == [["l2", "l3"]]


def test_what_was_done_before_a_forget_is_not_in_it_wherever_the_forget_stands() -> None:
    forget = Forget(event_id="f", user_id="u", timestamp=START + 2 * MINUTE)
    events = [click(0, "a"), click(1, "b"), click(1, "x", "v"), click(3, "c")]
    for at in range(len(events) + 1):
        assert sorted(sessions(gathered([*events[:at], forget, *events[at:]]))) == [["c"], ["x"]]


def test_parts_are_whole_sessions_and_together_everything() -> None:
    corpus = a_corpus([range(length) for length in (3, 1, 9, 2, 2)])
    for size in (1, 4, 5, 100):
        spans = list(corpus.parts(size))
        assert spans[0][0] == 0
        assert spans[-1][1] == corpus.sessions
        assert all(one[1] == other[0] for one, other in pairwise(spans))
        parts = [corpus.part(*span) for span in spans]
        assert np.concatenate([part.tokens for part in parts]).tolist() == corpus.tokens.tolist()
        assert all(len(part.tokens) == part.starts[-1] for part in parts)


def test_what_is_in_memory_does_not_grow_with_the_clicks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_, "PART", 40_000)
    monkeypatch.setattr(corpus_, "BUFFER", 4_000)
    catalogue = collect(Listing(listing_id=f"l{row}") for row in range(100))
    most = []
    for length in (1, 8):
        tracemalloc.start()
        collector = Collector()
        for user in range(length * 2_000):
            collector.add(user, [(at % 100, 0, 1.0, user + at) for at in range(50)])
        taken = steps(collector.corpus(catalogue))
        assert len(taken.tokens) == length * 100_000
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert most[1] < 1.5 * most[0]
