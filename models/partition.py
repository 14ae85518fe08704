"""One partition of `clicks`: records in, changes out. What the worker commits and offline runs compute is this.

Records are applied one by one, in the partition's own order, whatever the batches they come in: a user's due
sessions are closed before the next of the user's events is looked at, and everybody else's when the batch ends.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec

from models import history, sessions
from models.bundle import Bundle
from models.events import EventError, Forget, Tick, decode
from models.history import ClosedSession, History
from models.sessions import WINDOWS, State, UserEmbedding, Windows

DEAD_LETTER_BYTES = 64 * 1024
"""A dead letter carries at most so many bytes of the value, and of the key, that was not applied."""

CLOSINGS = 2_000
"""At most so many users are closed by the watermark in one batch; the rest follow before the next record."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What of a partition has been applied; the last record of every transaction on `user-embeddings`."""

    next_offset: int
    watermark: int
    cluster: str
    """The id of the Kafka cluster,"""
    topics: dict[str, str]
    """and of each topic, by name: offsets mean nothing on another."""
    version: int = 1


class DeadLetter(NamedTuple):
    """A record that was not applied, and why."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    reason: str
    detail: str

    def headers(self, topic: str, partition: int) -> list[tuple[str, str | bytes | None]]:
        """Where it came from and why it is here; the length and hash of the whole value."""
        value = self.value or b""
        facts = {
            "reason": self.reason,
            "detail": self.detail[:1000],
            "topic": topic,
            "partition": str(partition),
            "offset": str(self.offset),
            "timestamp": str(self.timestamp),
            "length": str(len(value)),
            "sha256": hashlib.sha256(value).hexdigest(),
        }
        return [(name, fact.encode(errors="replace")) for name, fact in facts.items()]


class States(Protocol):
    """Where a partition's states stand between batches."""

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The values of these keys."""

    def due(self, watermark: int) -> Iterator[bytes]:
        """The user ids of timers before `watermark`, soonest first."""


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
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _User:
    state: State | None
    offset: int
    before: State | None
    history: History | None = None
    history_read: bool = False
    history_changed: bool = False


_embedding_decoder = msgspec.json.Decoder(UserEmbedding)
_history_decoder = msgspec.json.Decoder(History)
_encode = msgspec.json.Encoder().encode
_EMPTY = State()


def user_key(user: bytes) -> bytes:
    """The store's key of a user's record of `user-embeddings`."""
    return b"u" + user


def history_key(user: bytes) -> bytes:
    """The store's key of a user's record of `user-histories`."""
    return b"h" + user


def timer_key(deadline: int, user: bytes) -> bytes:
    """The store's key that says when something is due for a user."""
    return b"t" + deadline.to_bytes(8, "big") + user


def decode_embedding(value: bytes) -> UserEmbedding:
    """A record of `user-embeddings`. Raises msgspec.MsgspecError where it is none."""
    return _embedding_decoder.decode(value)


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

    def load(self, keys: Iterable[bytes | None]) -> None:
        """Read the users of coming records in one go; `apply` reads one that is missing by itself."""
        users = [key for key in dict.fromkeys(keys) if key is not None and key not in self._users]
        for user, value in zip(users, self.states.get_many([user_key(user) for user in users]), strict=True):
            if value is None:
                self._users[user] = _User(None, -1, None)
            else:
                record = decode_embedding(value)
                self._users[user] = _User(record.state, record.offset, record.state)

    def apply(self, offset: int, timestamp: int, key: bytes | None, value: bytes | None) -> None:
        """Apply one record, by the rules of section 5 of the design; what can't be applied is a dead letter."""
        try:
            event = decode(value, key)
            sessions.check(event, timestamp, self.watermark, self.windows)
        except EventError as error:
            letter = DeadLetter(offset, timestamp, key, value, error.reason, str(error))
            self._changes.dead.append(letter)
            self._count(error.reason)
            return
        if not isinstance(event, Tick):
            user = event.user_id.encode()
            entry = self._advance(user)
            before = entry.state or _EMPTY
            after = sessions.apply(before, event, self.windows)
            if after is not before:
                entry.state, entry.offset = after, offset
            else:
                self._count("duplicate")
            if isinstance(event, Forget):
                self._forget(user, entry, event.timestamp)
        self._count(event.__struct_config__.tag)
        self.watermark = max(self.watermark, min(event.timestamp, timestamp))

    def embedding(self, user_id: str) -> UserEmbedding | None:
        """The user's record as it would stand on `user-embeddings` now; None where there is none."""
        user = user_id.encode()
        entry = self._advance(user)
        return self._record(user_id, entry) if entry.state is not None else None

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

    def _count(self, name: object) -> None:
        counts = self._changes.counts
        counts[str(name)] = counts.get(str(name), 0) + 1

    def _advance(self, user: bytes) -> _User:
        """The user, with everything closed that is due at the watermark."""
        if user not in self._users:
            self.load([user])
        entry = self._users[user]
        if entry.state is None:
            return entry
        state, closed = sessions.advance(entry.state, self.watermark, self.windows)
        for session in closed:
            self._close(user, entry, session)
        if state is None:
            if self._history(user, entry) is not None:
                entry.history, entry.history_changed = None, True
            self._count("dropped")
        entry.state = state
        return entry

    def _close(self, user: bytes, entry: _User, session: sessions.Session) -> None:
        name = user.decode()
        record = ClosedSession(user_id=name, first=session.first, last=session.last, events=session.events)
        self._changes.sessions.append((user, _encode(record)))
        past = self._history(user, entry) or History(user_id=name)
        entry.history, entry.history_changed = history.append(past, session, self.windows), True
        self._count("closed")

    def _forget(self, user: bytes, entry: _User, time: int) -> None:
        past = self._history(user, entry)
        if past is not None:
            left = history.forget(past, time)
            entry.history, entry.history_changed = left if left.visits else None, True

    def _history(self, user: bytes, entry: _User) -> History | None:
        if not entry.history_read:
            [value] = self.states.get_many([history_key(user)])
            entry.history = _history_decoder.decode(value) if value is not None else None
            entry.history_read = True
        return entry.history

    def _record(self, user_id: str, entry: _User) -> UserEmbedding:
        state = entry.state
        assert state is not None
        newest = state.sessions[-1] if state.sessions else None
        return UserEmbedding(
            user_id=user_id,
            vector=self.bundle.encode(newest) if self.bundle else None,
            bundle=self.bundle.name if self.bundle else "",
            as_of=state.last,
            partition=self.number,
            offset=entry.offset,
            state=state,
        )

    def _write(self, user: bytes, entry: _User, changes: Changes) -> None:
        if entry.history_changed:
            value = _encode(entry.history) if entry.history is not None else None
            changes.histories[user] = changes.store[history_key(user)] = value
        if entry.state is entry.before:
            return
        value = _encode(self._record(user.decode(), entry)) if entry.state is not None else None
        changes.embeddings[user] = changes.store[user_key(user)] = value
        old = sessions.deadline(entry.before, self.windows) if entry.before is not None else None
        new = sessions.deadline(entry.state, self.windows) if entry.state is not None else None
        if old != new:
            if old is not None:
                changes.store[timer_key(old, user)] = None
            if new is not None:
                changes.store[timer_key(new, user)] = b""


class Memory:
    """States in memory, for runs without a broker."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self._timers: list[bytes] = []

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        return [self.values.get(key) for key in keys]

    def due(self, watermark: int) -> Iterator[bytes]:
        end = timer_key(watermark, b"")
        passed = []
        try:
            while self._timers and self._timers[0] < end:
                key = heapq.heappop(self._timers)
                if key in self.values:
                    passed.append(key)
                    yield key[9:]
        finally:
            # They stand until `write` deletes them, whether or not the caller took them all.
            for key in passed:
                heapq.heappush(self._timers, key)

    def write(self, changes: dict[bytes, bytes | None]) -> None:
        """Make `Changes.store` visible."""
        for key, value in changes.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
                if key[:1] == b"t":
                    heapq.heappush(self._timers, key)
