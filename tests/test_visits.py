from __future__ import annotations

from itertools import groupby

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.datasets.importing import Entry
from models.evaluation import visits
from models.evaluation.positions import positions
from models.evaluation.visits import Visits
from models.events import Booking, Click, Event, Forget
from tests.made import MINUTE, START


def clicked(user: str, minute: int, listing: str, session: str | None = None, name: str = "") -> Entry:
    event = Click(
        event_id=name or f"{user}{minute}{listing}",
        user_id=user,
        timestamp=START + minute * MINUTE,
        listing_id=listing,
    )
    return event, session


def sequences(found: Visits) -> list[list[str]]:
    return [
        [found.listings[item] for item in found.items[start:end].tolist()]
        for start, end in zip(found.starts[:-1].tolist(), found.starts[1:].tolist(), strict=True)
    ]


def test_visits_end_after_half_an_hour_of_silence_unless_the_source_says_otherwise() -> None:
    own = [clicked("u", 0, "a"), clicked("u", 30, "b"), clicked("u", 61, "c")]
    named = [clicked("v", 5, "a", "s"), clicked("v", 95, "b", "s"), clicked("v", 96, "c", "t")]
    assert sequences(visits.gather([*own, *named])) == [["a", "b"], ["a", "b"], ["c"], ["c"]]


def test_clicks_stand_by_time_then_by_event_id_and_each_once() -> None:
    entries = [
        clicked("u", 2, "c", name="3"),
        clicked("u", 1, "b", name="2"),
        clicked("u", 1, "a", name="1"),
        clicked("u", 1, "b", name="2"),
        clicked("u", 1, "a", name="4"),
        clicked("u", 2, "c", name="5"),
    ]
    assert sequences(visits.gather(entries)) == [["a", "b", "a", "c", "c"]]


def test_only_clicks_are_steps_and_what_is_to_be_forgotten_is_none() -> None:
    booking: Event = Booking(event_id="b", user_id="u", timestamp=START + MINUTE, listing_id="z")
    forget: Event = Forget(event_id="f", user_id="u", timestamp=START + 2 * MINUTE)
    entries = [clicked("u", 0, "a"), clicked("u", 3, "b"), clicked("v", 0, "c"), (booking, None)]
    assert sequences(visits.gather(entries)) == [["a", "b"], ["c"]]
    assert sequences(visits.gather([*entries, (forget, None)])) == [["c"], ["b"]]


def test_codes_are_by_clicks_then_by_id() -> None:
    entries = [clicked("u", at, listing) for at, listing in enumerate("bccadda")]
    found = visits.gather(entries)
    assert found.listings == ["a", "c", "d", "b"]
    assert found.counts.tolist() == [2, 2, 2, 1]


def test_a_part_of_the_visits_has_its_own_codes_and_keeps_their_order() -> None:
    entries = [
        clicked("u", 0, "a"),
        clicked("u", 1, "a"),
        clicked("u", 2, "b"),
        clicked("v", 1, "b"),
        clicked("v", 2, "c"),
    ]
    found = visits.gather(entries)
    assert sequences(found.before(START + 2 * MINUTE)) == [["a", "a"], ["b"]]
    alone = found.chosen(np.array([1]))
    assert alone.listings == ["b", "c"]
    assert sequences(alone) == [["b", "c"]]
    assert len(found.before(START)) == 0


def test_positions_are_known_targets_behind_the_first_click_with_known_clicks_before() -> None:
    train = visits.gather([clicked("t", at, listing) for at, listing in enumerate("aab")])
    test = visits.gather([clicked("u", at, listing) for at, listing in enumerate("xbybaa")])
    asked = positions(test, train)
    assert asked.clicks.tolist() == [1, 3, 4, 5]
    assert [train.listings[target] for target in asked.targets] == ["b", "b", "a", "a"]
    before = [asked.items[begin:end].tolist() for begin, end in zip(asked.begins, asked.ends, strict=True)]
    assert before == [[], [1], [1, 1], [1, 1, 0]]
    assert asked.last().tolist() == [-1, 1, 1, 0]
    position, items, ages = asked[1:4].before()
    assert position.tolist() == [0, 1, 1, 2, 2, 2]
    assert items.tolist() == [1, 1, 1, 1, 1, 0]
    assert ages.tolist() == [0, 1, 0, 2, 1, 0]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from("uv"), st.sampled_from([None, "s", "t"]), st.integers(0, 90), st.sampled_from("abc")
    ),
    max_size=12,
)


@given(EVENTS)
def test_visits_are_what_sorting_and_splitting_gives(drawn: list[tuple[str, str | None, int, str]]) -> None:
    entries = [
        clicked(user, minute, listing, session, name=f"{at:02d}")
        for at, (user, session, minute, listing) in enumerate(drawn)
    ]
    expected = []
    ordered = sorted(enumerate(drawn), key=lambda one: (one[1][0], str(one[1][1]), one[1][2], one[0]))
    for (_, session), group in groupby(ordered, key=lambda one: (one[1][0], one[1][1])):
        visit: list[str] = []
        last = None
        for _, (_, _, minute, listing) in group:
            if last is not None and session is None and minute - last > 30:
                expected.append(visit)
                visit = []
            visit.append(listing)
            last = minute
        expected.append(visit)
    assert sorted(sequences(visits.gather(entries))) == sorted(expected)
