"""One partition's records in, changes out: the same as the oracle, whatever the batches and wherever it is resumed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.events import Booking, Click, Event, Forget, Leave, Result, Search, Tick, encode
from models.history import ClosedSession, History
from models.offline import Offline
from models.partition import CLOSINGS, Changes, Partition
from models.recording import Record
from models.sessions import Action, Kept, Left
from models.states import Memory, decode_embedding, history_key, user_key
from models.store import Store
from streams.states import Overlay
from tests.oracle import MINUTE, Oracle

START = 1_700_000_000_000
DAY = 24 * 60 * MINUTE
Row = tuple[int, int, bytes | None, bytes | None]


def brief(event: Kept) -> tuple[object, ...]:
    if isinstance(event, Left):
        return (event.timestamp, event.event_id, "leave", event.of)
    if isinstance(event, Action):
        return (event.timestamp, event.event_id, event.kind, event.listing_id)
    return (event.timestamp, event.event_id, "search", None)


class Run:
    """What a partition published, as its topics would hold it."""

    def __init__(self) -> None:
        self.states = Memory()
        self.embeddings: dict[bytes, bytes | None] = {}
        self.histories: dict[bytes, bytes | None] = {}
        self.sessions: list[bytes] = []
        self.dead: list[tuple[int, str]] = []
        self.watermark = 0

    def apply(self, rows: list[Row]) -> None:
        """One batch, by a partition that knows only what the last one left."""
        partition = Partition(0, bundle=None, states=self.states, watermark=self.watermark)
        partition.load(row[2] for row in rows)
        for row in rows:
            partition.apply(*row)
        while self.take(partition.flush()):
            pass

    def take(self, changes: Changes) -> bool:
        self.states.write(changes.store)
        self.embeddings |= changes.embeddings
        self.histories |= changes.histories
        self.sessions += [value for _, value in changes.sessions]
        self.dead += [(letter.offset, letter.reason) for letter in changes.dead]
        self.watermark = changes.watermark
        return changes.more

    def result(self) -> tuple[object, ...]:
        live = {key: value for key, value in self.embeddings.items() if value is not None}
        past = {key: value for key, value in self.histories.items() if value is not None}
        return (live, past, sorted(self.sessions), self.dead, self.watermark)


@st.composite
def recordings(draw: st.DrawFn, reused_ids: bool = True) -> list[Row]:
    """Records of a few users around a clock that moves on, some out of order, late, twice, ahead or broken."""
    clock = START
    rows: list[Row] = []
    seen: list[Event] = []
    for offset in range(draw(st.integers(1, 60))):
        clock += draw(st.sampled_from([0, 1_000, MINUTE, 8 * MINUTE, 31 * MINUTE, 45 * MINUTE, 15 * DAY]))
        kind = draw(st.sampled_from("cccccccsblftdx"))
        user = draw(st.sampled_from("uvw"))
        behind = draw(st.sampled_from([0, 0, 0, 0, 1_000, 5 * MINUTE, 9 * MINUTE, 11 * MINUTE, -3 * MINUTE]))
        time = clock - behind
        record_time = draw(st.sampled_from([clock, clock, clock, clock - 6 * MINUTE]))
        name = f"e{draw(st.integers(0, 40)) if reused_ids else offset}"
        event: Event
        if kind == "x":
            rows.append((offset, record_time, user.encode(), b"{"))
            continue
        if kind == "d" and seen:
            event = draw(st.sampled_from(seen))
        elif kind == "s":
            results = (Result(listing_id="a", position=1), Result(listing_id="b", position=2))
            event = Search(event_id=name, user_id=user, timestamp=time, results=results, search_id=f"s{name}")
        elif kind == "b":
            event = Booking(event_id=name, user_id=user, timestamp=time, listing_id="b", search_id=f"s{name}")
        elif kind == "l":
            event = Leave(event_id=name, user_id=user, timestamp=time, of="e1", seconds=75)
        elif kind == "f":
            event = Forget(event_id=name, user_id=user, timestamp=time)
        elif kind == "t":
            event = Tick(event_id=name, timestamp=time)
        else:
            event = Click(
                event_id=name, user_id=user, timestamp=time, listing_id=draw(st.sampled_from("abc"))
            )
        seen.append(event)
        key = None if isinstance(event, Tick) else event.user_id.encode()
        rows.append((offset, record_time, key, encode(event)))
    return rows


@settings(max_examples=60, deadline=None)
@given(recordings())
def test_the_oracle_agrees(rows: list[Row]) -> None:
    oracle = Oracle()
    for row in rows:
        oracle.apply(*row)
    run = Run()
    run.apply(rows)
    assert run.watermark == oracle.watermark
    assert run.dead == oracle.dead
    records = [msgspec.json.decode(value, type=ClosedSession) for value in run.sessions]
    closed = [(r.user_id, r.first, r.last, [brief(event) for event in r.events]) for r in records]
    assert sorted(closed) == sorted(oracle.closed)
    state = {
        key.decode(): decode_embedding(value).state
        for key, value in run.embeddings.items()
        if value is not None
    }
    assert {
        name: [(session.first, [brief(event) for event in session.events]) for session in found.sessions]
        for name, found in state.items()
    } == {name: sessions for name, sessions in oracle.open().items() if name in state}
    # The oracle keeps a user whose events were all dropped, of whom nothing was ever published.
    assert all(not sessions for name, sessions in oracle.open().items() if name not in state)


@settings(max_examples=40, deadline=None)
@given(recordings(), st.data())
def test_batches_and_resuming_change_nothing(rows: list[Row], data: st.DataObject) -> None:
    whole, parts = Run(), Run()
    whole.apply(rows)
    left = rows
    while left:
        size = data.draw(st.integers(1, len(left)))
        parts.apply(left[:size])
        left = left[size:]
    assert parts.result() == whole.result()


@settings(max_examples=60, deadline=None)
@given(recordings(reused_ids=False), st.data())
def test_what_comes_again_at_any_time_changes_nothing(rows: list[Row], data: st.DataObject) -> None:
    again = list(rows)
    for row in rows:
        # A forget that comes again erases again; what is broken is a dead letter again.
        if row[3] != b"{" and b'"forget"' not in (row[3] or b"") and data.draw(st.booleans(), label="again"):
            after = max(at for at, other in enumerate(again) if other == row)
            again.insert(data.draw(st.integers(after + 1, len(again)), label="where"), row)
    once, more = Run(), Run()
    once.apply(rows)
    more.apply(again)
    assert more.result()[1:3] == once.result()[1:3]
    assert more.watermark == once.watermark
    assert {
        key: decode_embedding(value).state for key, value in more.embeddings.items() if value is not None
    } == {key: decode_embedding(value).state for key, value in once.embeddings.items() if value is not None}


@settings(max_examples=30, deadline=None)
@given(recordings(), recordings(), st.data())
def test_the_interleaving_of_partitions_changes_nothing(
    one: list[Row], other: list[Row], data: st.DataObject
) -> None:
    def run(order: list[int]) -> list[tuple[int, list[tuple[str, object]]]]:
        taken: dict[int, list[tuple[str, object]]] = {0: [], 1: []}
        offline = Offline(None, lambda number, changes: taken[number].extend(told(changes)))
        waiting = {0: iter(one), 1: iter(other)}
        for number in order:
            offset, timestamp, key, value = next(waiting[number])
            offline.apply(Record(number, offset, timestamp, key, (), value))
        offline.flush()
        return sorted((number, sorted(rows, key=repr)) for number, rows in taken.items())

    apart = [0] * len(one) + [1] * len(other)
    assert run(data.draw(st.permutations(apart), label="order")) == run(apart)


def told(changes: Changes) -> list[tuple[str, object]]:
    return [
        *(("embedding", item) for item in changes.embeddings.items()),
        *(("history", item) for item in changes.histories.items()),
        *(("session", item) for item in changes.sessions),
        *(("dead", letter) for letter in changes.dead),
    ]


def clicks(user: str, *minutes: int, listing: str = "a") -> list[Row]:
    return [
        (
            at,
            START + minute * MINUTE,
            user.encode(),
            encode(
                Click(
                    event_id=f"{user}{minute}",
                    user_id=user,
                    timestamp=START + minute * MINUTE,
                    listing_id=listing,
                )
            ),
        )
        for at, minute in enumerate(minutes)
    ]


def test_a_closed_session_is_published_once_and_stands_in_the_history() -> None:
    run = Run()
    run.apply(clicks("u", 0, 1))
    run.apply(clicks("v", 100))
    [session] = [msgspec.json.decode(value, type=ClosedSession) for value in run.sessions]
    assert (session.user_id, session.first, session.last) == ("u", START, START + MINUTE)
    history = msgspec.json.decode(run.histories[b"u"] or b"", type=History)
    assert [visit.first for visit in history.visits] == [session.first]
    assert decode_embedding(run.embeddings[b"u"] or b"").state.sessions == ()


def test_a_silent_user_gets_tombstones() -> None:
    run = Run()
    run.apply(clicks("u", 0))
    run.apply(clicks("v", 15 * 24 * 60))
    assert run.embeddings[b"u"] is None
    assert run.histories[b"u"] is None
    assert user_key(b"u") not in run.states.values
    assert history_key(b"u") not in run.states.values


def test_what_is_left_of_a_forgotten_user_is_dated_by_the_forget() -> None:
    run = Run()
    run.apply(clicks("u", 0))
    time = START + MINUTE
    run.apply([(1, time, b"u", encode(Forget(event_id="f", user_id="u", timestamp=time)))])
    left = decode_embedding(run.embeddings[b"u"] or b"")
    assert (left.as_of, left.state.last, left.state.sessions, left.vector) == (time, 0, (), None)
    run.apply(clicks("v", 11))
    assert run.embeddings[b"u"] is not None
    run.apply(clicks("v", 12))
    assert run.embeddings[b"u"] is None


def test_many_closings_come_in_several_flushes() -> None:
    run = Run()
    users = CLOSINGS + 10
    for at in range(users):
        run.apply(clicks(f"u{at}", 0))
    partition = Partition(0, bundle=None, states=run.states, watermark=run.watermark)
    partition.apply(*clicks("v", 100)[0])
    first = partition.flush()
    assert first.more
    assert len(first.sessions) == CLOSINGS
    run.take(first)
    second = partition.flush()
    assert not second.more
    assert len(second.sessions) == 10


def test_a_visitor_shows_what_a_flush_would_publish() -> None:
    run = Run()
    partition = Partition(0, bundle=None, states=run.states)
    for row in clicks("u", 0, 1, 2):
        partition.apply(*row)
    shown = partition.visitor("u")
    assert shown is not None
    assert msgspec.json.encode(shown.embedding) == partition.flush().embeddings[b"u"]
    assert partition.visitor("nobody") is None


@pytest.fixture(params=["memory", "overlay"])
def states(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Memory | Overlay]:
    """Every kind of states passes the same tests."""
    if request.param == "memory":
        yield Memory()
    else:
        store = Store(tmp_path / "store")
        yield Overlay(store)
        store.close()


def put(states: Memory | Overlay, changes: dict[bytes, bytes | None], pending: bool) -> None:
    if isinstance(states, Memory):
        states.write(changes)
    elif pending:
        states.pending = changes
    else:
        states.store.write(changes)


@pytest.mark.parametrize("pending", [False, True])
def test_states_are_read_and_timers_come_in_order(states: Memory | Overlay, pending: bool) -> None:
    timer = [b"t" + time.to_bytes(8, "big") + b"user%d" % time for time in (5, 3, 9)]
    put(states, {b"ua": b"1", timer[0]: b"", timer[1]: b"", timer[2]: b""}, False)
    put(states, {b"ub": b"2", timer[1]: None, b"t" + (4).to_bytes(8, "big") + b"new": b""}, pending)
    assert states.get_many([b"ub", b"uz", b"ua"]) == [b"2", None, b"1"]
    assert list(states.due(9)) == [b"new", b"user5"]
    assert list(states.due(10)) == [b"user9"] or isinstance(states, Memory)
