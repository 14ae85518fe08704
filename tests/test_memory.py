"""Visitors in memory: packed without a loss, forgotten where the store has others, and no more of them than there is room for."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from models.history import Deed, Done, History, Visit
from models.rank import Candidate, rank
from models.sessions import Action, Kind, Left, Session, Shown, State, UserEmbedding
from models.states import history_key, user_key
from models.visitor import Visitor
from serving.closed import closed_key
from serving.memory import OVERHEAD, SHARDS, Memory
from serving.states import States
from tests.made import START, a_bundle, act, past, user_in

BUNDLE = a_bundle(markets=[f"m{row % 3}" for row in range(50)])
KINDS: list[Kind] = ["click", "wishlist", "inquiry", "booking", "rejection"]
DEEDS: list[Deed] = ["click", "long-click", "skip", "wishlist", "inquiry", "booking", "rejection"]
IDS = st.sampled_from([f"l{row}" for row in range(60)]) | st.text(max_size=4)
MARKETS = st.none() | st.sampled_from(["m0", "m1", ""])
TIMES = st.integers(-(2**40), 2**41)


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    first, events = START + draw(st.integers(-3600_000, 0)), []
    for number in range(draw(st.integers(1, 6))):
        time, name, search = (
            first + number * draw(st.integers(0, 90_000)),
            f"e{number}",
            draw(st.sampled_from("ab")),
        )
        events.append(
            draw(
                st.one_of(
                    st.builds(
                        Action,
                        st.just(time),
                        st.just(name),
                        st.sampled_from(KINDS),
                        IDS,
                        MARKETS,
                        st.none() | st.just(search),
                    ),
                    st.builds(
                        Shown,
                        st.just(time),
                        st.just(name),
                        st.just(search),
                        MARKETS,
                        st.lists(IDS, max_size=4).map(tuple),
                    ),
                    st.builds(
                        Left,
                        st.just(time),
                        st.just(name),
                        st.sampled_from(["e0", "e1"]),
                        st.floats(0, 1e4),
                    ),
                )
            )
        )
    return Session(first, tuple(events))


VECTORS = st.none() | st.lists(
    st.integers(-1_000_000, 1_000_000).map(lambda millionths: millionths / 1e6), min_size=8, max_size=8
).map(tuple)
RECORDS = st.builds(
    UserEmbedding,
    user_id=st.just("u"),
    vector=VECTORS,
    bundle=st.sampled_from(["", "another"]),
    as_of=TIMES,
    partition=st.integers(0, 9_999),
    offset=st.integers(0, 2**62),
    state=st.builds(State, sessions=st.lists(sessions(), max_size=3).map(tuple), last=TIMES),
)
VISITS = st.builds(
    Visit,
    TIMES,
    TIMES,
    st.lists(st.builds(Done, st.sampled_from(DEEDS), IDS, TIMES, MARKETS), max_size=8).map(tuple),
)
HISTORIES = st.none() | st.builds(
    History, user_id=st.just("u"), visits=st.lists(VISITS, max_size=3).map(tuple)
)


@given(RECORDS, HISTORIES, st.lists(sessions(), max_size=2).map(tuple))
def test_a_packed_visitor_is_the_same_visitor(
    record: UserEmbedding, history: History | None, closed: tuple[Session, ...]
) -> None:
    whole = Visitor.of(record, history, closed)
    assert whole.packed is not None
    packed = Visitor.unpacked(whole.packed)
    assert packed.packed == whole.packed
    for name in ("as_of", "partition", "offset", "bundle", "vector", "acted"):
        assert getattr(packed.known, name) == getattr(whole.known, name), name
    candidates = [Candidate(f"l{row}") for row in range(50)]
    for timestamp in (START, START + 40 * 60_000):
        assert packed.open(timestamp) == whole.open(timestamp)
        assert packed.deeds(timestamp) == whole.deeds(timestamp)
        one, other = (
            rank(BUNDLE, visitor, candidates, timestamp=timestamp, explain=True)
            for visitor in (whole, packed)
        )
        assert one.outcome == other.outcome
        assert one.order.tolist() == other.order.tolist()
        if one.contributions is not None and other.contributions is not None:
            assert one.contributions.tobytes() == other.contributions.tobytes()


def test_what_would_lose_a_bit_is_not_packed() -> None:
    record = msgspec.structs.replace(user_in(BUNDLE, act(0, "l1")), vector=(1 / 3,) * 8)
    assert Visitor.of(record).packed is None


def test_a_visitor_takes_some_hundred_bytes() -> None:
    record = user_in(BUNDLE, *(act(at * 60, f"l{at}") for at in range(8)))
    packed = Visitor.of(record, past(*[("click", f"l{row}", "m1") for row in range(20)])).packed
    assert packed is not None
    assert len(packed) < 450


def test_users_are_forgotten_once_the_store_has_other_records() -> None:
    record = user_in(BUNDLE, act(0, "l1"))
    stored: dict[bytes, bytes] = {user_key(b"u"): msgspec.json.encode(record)}
    asked: list[bytes] = []

    def get(key: bytes) -> bytes | None:
        asked.append(key)
        return stored.get(key)

    states = States(get, memory=Memory(1 << 20))

    def acted() -> list[str]:
        visitor = states.visitor("u", BUNDLE.name)
        assert visitor is not None
        return visitor.known.acted

    assert acted() == ["l1"]
    read = [user_key(b"u"), closed_key(b"u"), history_key(b"u")]
    assert asked == read
    stored[user_key(b"u")] = msgspec.json.encode(user_in(BUNDLE, act(0, "l1"), act(5, "l2")))
    assert acted() == ["l1"]
    assert asked == read  # it was not asked again
    states.advance({}, [b"u"])
    assert acted() == ["l1", "l2"]
    assert asked == 2 * read
    # A vector of another bundle is looked for anew, and so is whoever needs the records themselves.
    states.visitor("u", "another")
    assert len(asked) == 10
    whole = states.visitor("u", BUNDLE.name, whole=True)
    assert whole is not None
    assert [event.listing_id for event in whole.embedding.state.sessions[0].events] == ["l1", "l2"]  # type: ignore[union-attr]


def test_there_are_no_more_than_there_is_room_for() -> None:
    each = OVERHEAD + 100
    memory = Memory(SHARDS * each * 4)
    for number in range(SHARDS * 16):
        memory.put(b"%d" % number, b"x" * 100)
        memory.put(b"%d" % number, b"y" * 100)
        assert memory.get(b"%d" % number) == b"y" * 100
    assert SHARDS < len(memory) <= SHARDS * 4
    assert memory.size == len(memory) * each
    memory.put(b"large", b"z" * each * 5)
    assert memory.get(b"large") is None
    kept = [number for number in range(SHARDS * 16) if memory.get(b"%d" % number)]
    memory.forget(b"%d" % number for number in kept)
    assert (len(memory), memory.size) == (0, 0)


def test_without_room_nothing_is_kept() -> None:
    memory = Memory(0)
    memory.put(b"u", b"x")
    assert memory.get(b"u") is None
    assert memory.full
