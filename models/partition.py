"""One partition of `clicks`: records in, changes out. What the worker commits and offline runs compute is this.

Records are applied one by one, in the partition's own order, whatever the batches they come in: a user's due
sessions are closed before the next of the user's events is looked at, and everybody else's when the batch ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from models import history, sessions
from models.bundle import Bundle
from models.dead_letters import DeadLetter
from models.events import EventError, Forget, Tick, UserEvent, decode
from models.history import ClosedSession, History
from models.sessions import WINDOWS, State, UserEmbedding, Windows
from models.states import States, decode_embedding, decode_history, history_key, timers, user_key
from models.visitor import Visitor

CLOSINGS = 2_000
"""At most so many users are closed by the watermark in one batch; the rest follow before the next record."""


@dataclass(slots=True)
class Changes:
    """What a batch changed, encoded: the records to publish, and the keys of the store."""

    embeddings: dict[bytes, bytes | None] = field(default_factory=dict)
    histories: dict[bytes, bytes | None] = field(default_factory=dict)
    sessions: list[tuple[bytes, bytes]] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    store: dict[bytes, bytes | None] = field(default_factory=dict)
    watermark: int = 0
    more: bool = False
    """More users are due than one batch closes: flush again before the next record."""
    counts: Counter[str] = field(default_factory=Counter)
    """Events by type, dead letters by reason, `duplicate`, `forgotten` (dropped by a forget's mark), and sessions
    `opened` and `closed`, users `dropped`."""


@dataclass(slots=True)
class _User:
    state: State | None
    offset: int
    before: State | None
    stale: bool = False
    """The published vector is of another bundle."""
    history: History | None = None
    history_read: bool = False
    history_changed: bool = False


_encode = msgspec.json.Encoder().encode
_EMPTY = State()


class Partition:
    """Applies the records of one partition of `clicks`.

    Between batches nothing is held here but the watermark; `states` must show, at the next record after
    `flush`, what the flush changed.
    """

    def __init__(
        self,
        number: int,
        *,
        bundle: Bundle | None,
        states: States,
        watermark: int = 0,
        windows: Windows = WINDOWS,
    ) -> None:
        self.number = number
        self.bundle = bundle
        self.states = states
        self.watermark = watermark
        self.windows = windows
        self._users: dict[bytes, _User] = {}
        self._changes = Changes()

    @property
    def _name(self) -> str:
        return self.bundle.name if self.bundle else ""

    def load(self, keys: Iterable[bytes | None]) -> int:
        """Read the users of coming records in one go; `apply` reads one that is missing by itself.

        Whoever is loaded and has a vector of another bundle gets one of this bundle with the next flush: so many.
        """
        stale = 0
        users = [key for key in dict.fromkeys(keys) if key is not None and key not in self._users]
        for user, value in zip(users, self.states.get_many([user_key(user) for user in users]), strict=True):
            if value is None:
                self._users[user] = _User(None, -1, None)
            else:
                record = decode_embedding(value)
                other = record.bundle != self._name and bool(record.state.sessions)
                self._users[user] = _User(record.state, record.offset, record.state, other)
                stale += other
        return stale

    def apply(self, offset: int, timestamp: int, key: bytes | None, value: bytes | None) -> None:
        """Apply one record, by the rules of section 5 of the design; what can't be applied is a dead letter."""
        try:
            event = decode(value, key)
            sessions.check(event, timestamp, self.watermark, self.windows)
        except EventError as error:
            letter = DeadLetter(offset, timestamp, key, value, error.reason, str(error))
            self._changes.dead.append(letter)
            self._changes.counts[error.reason] += 1
            return
        if not isinstance(event, Tick):
            assert key is not None
            self._apply_to_user(offset, key, event)
        self._changes.counts[event.__struct_config__.tag] += 1  # type: ignore[index]
        self.watermark = max(self.watermark, min(event.timestamp, timestamp))

    def _apply_to_user(self, offset: int, user: bytes, event: UserEvent) -> None:
        entry = self._advance(user)
        before = entry.state or _EMPTY
        after = sessions.apply(before, event, self.windows)
        counts = self._changes.counts
        if after is not before:
            entry.state, entry.offset = after, offset
            if (opened := len(after.sessions) - len(before.sessions)) > 0:
                counts["opened"] += opened
        elif before.forgotten is not None and event.timestamp <= before.forgotten:
            counts["forgotten"] += 1
        else:
            counts["duplicate"] += 1
        if isinstance(event, Forget):
            self._forget(user, entry, event.timestamp)

    def visitor(self, user_id: str) -> Visitor | None:
        """The user as the records that would stand on the topics now show them; None where there is none."""
        user = user_id.encode()
        entry = self._advance(user)
        if entry.state is None:
            return None
        return Visitor.of(self._record(user_id, entry), self._history(user, entry))

    def flush(self) -> Changes:
        """End the batch: close what is due, and give what changed since the last flush."""
        for user in list(self._users):
            self._advance(user)
        closings = 0
        for user in self.states.due(self.watermark):
            if user in self._users:
                continue
            if closings == CLOSINGS:
                self._changes.more = True
                break
            closings += 1
            self._advance(user)
        changes, self._changes = self._changes, Changes()
        for user, entry in self._users.items():
            self._write(user, entry, changes)
        self._users = {}
        changes.watermark = self.watermark
        return changes

    def _advance(self, user: bytes) -> _User:
        """The user, with everything closed that is due at the watermark."""
        entry = self._users.get(user)
        if entry is None:
            self.load([user])
            entry = self._users[user]
        if entry.state is None:
            return entry
        state, closed = sessions.advance(entry.state, self.watermark, self.windows)
        if state is entry.state:
            return entry
        for session in closed:
            self._close(user, entry, session)
        if state is None:
            if self._history(user, entry) is not None:
                entry.history, entry.history_changed = None, True
            self._changes.counts["dropped"] += 1
        entry.state = state
        return entry

    def _close(self, user: bytes, entry: _User, session: sessions.Session) -> None:
        name = user.decode()
        record = ClosedSession(user_id=name, first=session.first, last=session.last, events=session.events)
        self._changes.sessions.append((user, _encode(record)))
        past = self._history(user, entry) or History(user_id=name)
        entry.history, entry.history_changed = history.append(past, session, self.windows), True
        self._changes.counts["closed"] += 1

    def _forget(self, user: bytes, entry: _User, time: int) -> None:
        past = self._history(user, entry)
        if past is not None and (left := history.forget(past, time)) != past:
            entry.history, entry.history_changed = left if left.visits else None, True

    def _history(self, user: bytes, entry: _User) -> History | None:
        if not entry.history_read:
            [value] = self.states.get_many([history_key(user)])
            entry.history = decode_history(value) if value is not None else None
            entry.history_read = True
        return entry.history

    def _record(self, user_id: str, entry: _User) -> UserEmbedding:
        state = entry.state
        assert state is not None
        newest = state.sessions[-1] if state.sessions else None
        return UserEmbedding(
            user_id=user_id,
            vector=self.bundle.encode(newest) if self.bundle else None,
            bundle=self._name,
            as_of=max(state.last, state.forgotten or 0),
            partition=self.number,
            offset=entry.offset,
            state=state,
        )

    def _write(self, user: bytes, entry: _User, changes: Changes) -> None:
        if entry.history_changed:
            value = _encode(entry.history) if entry.history is not None else None
            changes.histories[user] = changes.store[history_key(user)] = value
        if entry.state is entry.before and not (entry.stale and entry.state and entry.state.sessions):
            return
        value = _encode(self._record(user.decode(), entry)) if entry.state is not None else None
        changes.embeddings[user] = changes.store[user_key(user)] = value
        changes.store |= timers(user, entry.before, entry.state, self.windows)
