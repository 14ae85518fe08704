"""Session windows, by the rules of the design; times here are in minutes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.events import Booking, Click, Forget, Impossible, Late, Leave, Result, Search
from models.sessions import MINUTE, WINDOWS, State, Windows, advance, apply, check, deadline


def click(minute: float, name: str | None = None, listing: str = "a") -> Click:
    time = int(minute * MINUTE)
    return Click(event_id=name or f"e{time}", user_id="u", timestamp=time, listing_id=listing)


def search(minute: float, *listings: str) -> Search:
    results = tuple(Result(listing_id=name, position=at) for at, name in enumerate(listings, 1))
    time = int(minute * MINUTE)
    return Search(event_id=f"s{time}", user_id="u", timestamp=time, results=results)


def after(*events: object) -> State:
    state = State()
    for event in events:
        state = apply(state, event)  # type: ignore[arg-type]
    return state


def spans(state: State) -> list[tuple[float, float]]:
    return [(session.first / MINUTE, session.last / MINUTE) for session in state.sessions]


def test_an_event_within_the_gap_joins() -> None:
    assert spans(after(click(100), click(130))) == [(100, 130)]


def test_an_event_beyond_the_gap_opens_another() -> None:
    assert spans(after(click(100), click(130.1))) == [(100, 100), (130.1, 130.1)]


def test_an_event_between_two_joins_them() -> None:
    assert spans(after(click(100), click(150), click(125))) == [(100, 150)]


def test_an_older_event_opens_an_older_session() -> None:
    assert spans(after(click(100), click(60))) == [(60, 60), (100, 100)]


def test_the_first_of_two_events_with_one_id_stays() -> None:
    first = after(click(100, "x", "a"))
    assert apply(first, click(101, "x", "b")) is first


def test_an_id_may_come_again_once_its_session_has_closed() -> None:
    state, closed = advance(after(click(100, "x")), 141 * MINUTE)
    assert len(closed) == 1
    assert state is not None
    assert spans(apply(state, click(141, "x"))) == [(141, 141)]


def test_events_of_one_time_stand_in_the_order_of_their_ids() -> None:
    state = after(click(100, "b"), click(100, "a"))
    assert [event.event_id for event in state.sessions[0].events] == ["a", "b"]


def test_a_full_session_drops_its_oldest_and_keeps_its_first_timestamp() -> None:
    state = after(*(click(100 + at, f"e{at:03}") for at in range(103)))
    [session] = state.sessions
    assert len(session.events) == 100
    assert session.events[0].event_id == "e003"
    assert session.first == 100 * MINUTE
    assert spans(apply(state, click(71, "old"))) == [(71, 202)]


def test_only_the_newest_searches_keep_their_results() -> None:
    state = after(*(search(100 + at, "a", "b") for at in range(6)))
    kept = [event.results for event in state.sessions[0].events]  # type: ignore[union-attr]
    assert kept == [(), (), *[("a", "b")] * 4]


def test_a_leave_may_come_before_its_click() -> None:
    leave = Leave(event_id="z", user_id="u", timestamp=102 * MINUTE, of="x", seconds=90)
    assert after(leave, click(101, "x")) == after(click(101, "x"), leave)


def test_a_session_closes_after_gap_and_grace() -> None:
    state = after(click(100))
    assert advance(state, 140 * MINUTE) == (state, ())
    left, closed = advance(state, 140 * MINUTE + 1)
    assert left is not None
    assert left.sessions == ()
    assert closed == state.sessions


def test_a_silent_user_is_dropped_after_two_weeks_and_the_grace() -> None:
    state, _ = advance(after(click(100)), 200 * MINUTE)
    assert state is not None
    end = deadline(state)
    assert end == (100 + 14 * 24 * 60 + 10) * MINUTE
    assert advance(state, end)[0] is state
    assert advance(state, end + 1)[0] is None


def test_nothing_is_due_before_the_deadline() -> None:
    state = after(click(100), click(150))
    due = deadline(state)
    assert advance(state, due) == (state, ())
    assert advance(state, due + 1)[1] == state.sessions[:1]


def test_late_is_measured_from_the_watermark_before_the_event() -> None:
    check(click(90), 90 * MINUTE, 100 * MINUTE)
    with pytest.raises(Late, match="behind"):
        check(click(89.9), 90 * MINUTE, 100 * MINUTE)


def test_an_event_far_ahead_of_its_record_is_impossible() -> None:
    check(click(105), 100 * MINUTE, 0)
    with pytest.raises(Impossible, match="after its record"):
        check(click(105.1), 100 * MINUTE, 0)


def test_forget_is_never_late_and_drops_what_is_not_newer() -> None:
    forget = Forget(event_id="f", user_id="u", timestamp=101 * MINUTE)
    check(forget, 101 * MINUTE, 10_000 * MINUTE)
    state = after(click(100), click(101), click(102), forget)
    assert spans(state) == [(102, 102)]
    assert apply(state, click(100.5, "again")) is state
    assert spans(apply(state, click(103))) == [(102, 103)]


def test_the_mark_of_a_forget_ends_once_what_it_drops_would_be_late() -> None:
    state = after(click(100), Forget(event_id="f", user_id="u", timestamp=101 * MINUTE))
    assert state.sessions == ()
    kept, _ = advance(state, 111 * MINUTE)
    assert kept is state
    assert advance(state, 111 * MINUTE + 1) == (None, ())


TINY = Windows(events=4, searches=2, results=2)


@given(st.permutations([*range(0, 60, 5), 95, 96, 140, 170, 171]), st.data())
def test_any_order_gives_what_sorting_gives(minutes: list[int], data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from("csb"), min_size=len(minutes), max_size=len(minutes)))
    events = []
    for minute, kind in zip(sorted(minutes), kinds, strict=True):
        time = minute * MINUTE
        if kind == "c":
            events.append(click(minute))
        elif kind == "s":
            events.append(search(minute, "a", "b", "c"))
        else:
            events.append(Booking(event_id=f"b{time}", user_id="u", timestamp=time, listing_id="a"))
    by_minute = dict(zip(sorted(minutes), events, strict=True))
    one, other = State(), State()
    for minute in sorted(minutes):
        one = apply(one, by_minute[minute], TINY)
    for minute in minutes:
        other = apply(other, by_minute[minute], TINY)
    assert one == other
    assert WINDOWS.events == 100
