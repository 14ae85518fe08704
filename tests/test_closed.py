"""A session that left the state and is not in the history yet, whichever of the two topics comes first."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from models.history import History, append
from models.sessions import Session, State, UserEmbedding
from models.states import history_key, user_key
from models.store import Store
from serving import closed, users, vectors
from serving.states import States
from tests.made import MINUTE, START, a_bundle, act, visit

BUNDLE = a_bundle()
OLD, NEW = visit(act(0, "l1"), act(5, "l2")), visit(act(3600, "l3"))
NAMED = append(History(user_id="u"), OLD)


class Stored:
    """A store, and what records of the user `u` do to it."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.states = States(self.store.get)

    def state(self, *records: UserEmbedding | None) -> None:
        values = [msgspec.json.encode(record) if record is not None else None for record in records]
        self._change({b"u": values[-1]}, {b"u": values[:-1]}, {})

    def history(self, history: History | None) -> None:
        self._change({}, {}, {b"u": msgspec.json.encode(history) if history is not None else None})

    def _change(
        self,
        last: dict[bytes, bytes | None],
        earlier: dict[bytes, list[bytes | None]],
        histories: dict[bytes, bytes | None],
    ) -> None:
        changes, _ = users.changed(self.store, last, earlier, histories, [BUNDLE], follows=True)
        self.store.write(changes)

    @property
    def closed(self) -> tuple[Session, ...]:
        visitor = self.states.visitor("u", BUNDLE.name)
        assert visitor is not None
        return visitor.closed


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path / "store")


def record(*sessions: Session, forgotten: int | None = None) -> UserEmbedding:
    state = State(sessions=sessions, last=START, forgotten=forgotten)
    return UserEmbedding(
        user_id="u", vector=None, bundle=BUNDLE.name, as_of=START, partition=0, offset=0, state=state
    )


def test_the_state_first(stored: Stored) -> None:
    stored.state(record(OLD))
    assert stored.closed == ()
    stored.state(record(NEW))
    assert stored.closed == (OLD,)
    stored.state(record(visit(*NEW.events, act(3700, "l4"))))
    assert stored.closed == (OLD,)
    stored.history(NAMED)
    assert stored.closed == ()
    assert stored.store.get(closed.closed_key(b"u")) is None


def test_the_history_first(stored: Stored) -> None:
    stored.state(record(OLD, NEW))
    stored.history(NAMED)
    stored.state(record(NEW))
    assert stored.closed == ()


def test_both_at_once(stored: Stored) -> None:
    stored.state(record(OLD))
    value = msgspec.json.encode(record())
    changes, _ = users.changed(
        stored.store, {b"u": value}, {}, {b"u": msgspec.json.encode(NAMED)}, [BUNDLE], follows=True
    )
    stored.store.write(changes)
    assert stored.closed == ()


def test_one_that_opened_and_closed_among_records_that_came_at_once(stored: Stored) -> None:
    stored.state(record(), record(OLD), record())
    assert stored.closed == (OLD,)


def test_a_history_that_has_moved_past_it_is_enough(stored: Stored) -> None:
    stored.state(record(OLD))
    stored.state(record())
    stored.history(append(History(user_id="u"), visit(act(-7200, "l1"))))
    assert stored.closed == (OLD,)
    stored.history(append(History(user_id="u"), NEW))
    assert stored.closed == ()


def test_a_session_that_is_joined_with_another_has_not_closed(stored: Stored) -> None:
    stored.state(record(OLD, NEW))
    stored.state(record(visit(act(-60, "l9"), *OLD.events, act(1800, "l5"), *NEW.events)))
    assert stored.closed == ()


def test_of_a_dropped_user_nothing_is_kept(stored: Stored) -> None:
    stored.state(record(OLD))
    stored.state(record())
    stored.state(None)
    assert stored.store.get(closed.closed_key(b"u")) is None
    stored.state(record(NEW))
    assert stored.closed == ()


def test_what_a_forget_covers_is_not_kept(stored: Stored) -> None:
    stored.state(record(OLD, NEW))
    stored.state(record(NEW))
    stored.state(record(NEW, forgotten=START + 1_000))
    assert stored.closed == (Session(START + 1_001, OLD.events[1:]),)
    stored.state(record(forgotten=START + 100 * MINUTE))
    assert stored.closed == ()


def test_nothing_is_kept_until_it_has_caught_up(stored: Stored) -> None:
    stored.state(record(OLD))
    changes, _ = users.changed(
        stored.store, {b"u": msgspec.json.encode(record())}, {}, {}, [BUNDLE], follows=False
    )
    assert closed.closed_key(b"u") not in changes


def test_of_a_forgotten_user_no_vector_stays(stored: Stored) -> None:
    other = msgspec.structs.replace(record(OLD), bundle="other")
    stored.state(other)
    key = vectors.space(BUNDLE.name) + b"u"
    visitor = stored.states.visitor("u", BUNDLE.name)
    assert visitor is not None
    assert visitor.embedding.vector == BUNDLE.encode(OLD)
    stored.state(msgspec.structs.replace(record(forgotten=START + 100 * MINUTE), bundle="other"))
    assert stored.store.get(key) is None


def test_a_vector_of_an_earlier_record_is_not_taken_for_a_later_ones(stored: Stored) -> None:
    stored.state(msgspec.structs.replace(record(OLD), bundle="other"))
    later = msgspec.structs.replace(record(NEW), bundle="other", offset=1, as_of=NEW.last)
    stored.store.write({user_key(b"u"): msgspec.json.encode(later)})
    visitor = stored.states.visitor("u", BUNDLE.name)
    assert visitor is not None
    assert visitor.embedding == later
    assert stored.store.get(history_key(b"u")) is None
