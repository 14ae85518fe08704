"""The users' states by key, the timers that say when something is due for them, and the checkpoint they stand for."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Protocol

import msgspec

from models.events import Version
from models.history import History
from models.sessions import WINDOWS, State, UserEmbedding, Windows, deadline


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What of a partition has been applied; the last record of every transaction on `user-embeddings`."""

    next_offset: int
    watermark: int
    cluster: str
    """The id of the Kafka cluster,"""
    topics: dict[str, str]
    """and of each topic, by name: offsets mean nothing on another."""
    version: Version = 1


class States(Protocol):
    """Where a partition's states stand between batches."""

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The values of these keys."""

    def due(self, watermark: int) -> Iterator[bytes]:
        """The user ids of timers before `watermark`, soonest first."""


# Made here and not where they are first used: msgspec crashes where two threads are the first to use a type.
_embedding_decoder = msgspec.json.Decoder(UserEmbedding)
_history_decoder = msgspec.json.Decoder(History)
_checkpoint_decoder = msgspec.json.Decoder(Checkpoint)


def decode_embedding(value: bytes) -> UserEmbedding:
    """A record of `user-embeddings`. Raises msgspec.MsgspecError where it is none, or of a later version."""
    return _embedding_decoder.decode(value)


def decode_history(value: bytes) -> History:
    """A record of `user-histories`. Raises msgspec.MsgspecError where it is none, or of a later version."""
    return _history_decoder.decode(value)


def decode_checkpoint(value: bytes) -> Checkpoint:
    """A partition's checkpoint. Raises msgspec.MsgspecError where it is none, or of a later version."""
    return _checkpoint_decoder.decode(value)


def user_key(user: bytes) -> bytes:
    """The key of a user's record of `user-embeddings`."""
    return b"u" + user


def history_key(user: bytes) -> bytes:
    """The key of a user's record of `user-histories`."""
    return b"h" + user


def timer_key(deadline: int, user: bytes) -> bytes:
    """The key that says when something is due for a user."""
    return b"t" + deadline.to_bytes(8, "big") + user


def timers(
    user: bytes, before: State | None, after: State | None, windows: Windows = WINDOWS
) -> dict[bytes, bytes | None]:
    """What to change so that the user's timer is that of the state `after` and no longer that of `before`."""
    old = deadline(before, windows) if before is not None else None
    new = deadline(after, windows) if after is not None else None
    if old == new:
        return {}
    changes: dict[bytes, bytes | None] = {}
    if old is not None:
        changes[timer_key(old, user)] = None
    if new is not None:
        changes[timer_key(new, user)] = b""
    return changes


class Memory:
    """States in memory, for runs without a broker."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self._timers: list[bytes] = []
        """A heap; a key that is no longer in `values` is left out when its time has come."""

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The values of these keys."""
        return [self.values.get(key) for key in keys]

    def due(self, watermark: int) -> Iterator[bytes]:
        """The user ids of timers before `watermark`, soonest first."""
        end = timer_key(watermark, b"")
        passed = []
        while self._timers and self._timers[0] < end:
            passed.append(heapq.heappop(self._timers))
        standing = [key for key in dict.fromkeys(passed) if key in self.values]
        # They stand until `write` deletes them, whether or not the caller takes them all.
        for key in standing:
            heapq.heappush(self._timers, key)
        return (key[9:] for key in standing)

    def write(self, changes: dict[bytes, bytes | None]) -> None:
        """Make `Changes.store` visible."""
        for key, value in changes.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
                if key[:1] == b"t":
                    heapq.heappush(self._timers, key)
