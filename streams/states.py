"""A partition's states on this worker's disk: what is committed, and what the batch being committed changed."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice

import msgspec

from models.events import Version
from models.states import Checkpoint, timer_key, user_key
from models.store import Store, following

_STANDING = b"m"
_USERS = user_key(b"")


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a store stands for: positions on the output topics, and what was applied of the input there."""

    embeddings: int = 0
    """The position on `user-embeddings` up to which the store holds it,"""
    histories: int = 0
    """and on `user-histories`."""
    checkpoint: Checkpoint | None = None
    """The last checkpoint below that position."""
    written_at: int = 0
    """By the clock, ms, when the store was last up to its topics; where that is longer ago than they keep tombstones, it can't be caught up."""
    bundle: str = ""
    """Of which bundle all vectors are; empty where some may be of another."""
    version: Version = 1


_standings = msgspec.json.Decoder(Standing)


def read_standing(store: Store) -> Standing:
    """What the store stands for; nothing, where it is new. Raises msgspec.MsgspecError where it is of another version."""
    value = store.get(_STANDING)
    return _standings.decode(value) if value is not None else Standing()


def write(store: Store, changes: dict[bytes, bytes | None], standing: Standing) -> None:
    """Write states and what they stand for, in one."""
    store.write({**changes, _STANDING: msgspec.json.encode(standing)})


def users(store: Store, after: bytes, count: int) -> list[bytes]:
    """The next `count` users of a store after the user `after`, in the order of their ids."""
    begin = user_key(after) + b"\0" if after else _USERS
    return [key[1:] for key, _ in islice(store.items(begin, following(_USERS)), count)]


class Overlay:
    """The store seen through what the batch that is being committed changed (models.states.States)."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.pending: dict[bytes, bytes | None] = {}
        """Changes not yet in the store. Replaced, never changed: a batch is computed while another commits."""
        self._closed = 0

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The values of these keys."""
        pending = self.pending
        rest = iter(self.store.get_many([key for key in keys if key not in pending]))
        return [pending[key] if key in pending else next(rest) for key in keys]

    def due(self, watermark: int) -> Iterator[bytes]:
        """The user ids of timers before `watermark`, soonest first."""
        pending = self.pending
        begin, end = timer_key(self._closed, b""), timer_key(watermark, b"")
        new = sorted(key for key, value in pending.items() if begin <= key < end and value is not None)
        stored = (key for key, _ in self.store.items(begin, end) if key not in pending)
        for key in heapq.merge(stored, new):
            yield key[9:]
        # All before are being closed by whoever took them, and no timer is ever set before the watermark: the
        # next scan need not step over what is deleted here.
        self._closed = watermark
