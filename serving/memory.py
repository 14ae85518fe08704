"""Visitors in memory, packed into few bytes each, so that a request hardly ever waits for a disk.

What is here is a copy of what the store has. Users whose records change are forgotten here once the store has them, and
put again by the request that reads them next; all are put once the sidecar has caught up.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

SHARDS = 1 << 10
"""As many parts, of which one is forgotten whole where there is no more room: no request waits long for any of it."""
OVERHEAD = 180
"""Bytes that Python needs for an entry, besides its value's."""


class Memory:
    """Packed visitors by user id, as many as there is room for. For any thread."""

    def __init__(self, capacity: int) -> None:
        """Room for `capacity` bytes; 0 for nothing."""
        self._room = capacity // SHARDS
        self._shards: list[dict[bytes, bytes]] = [{} for _ in range(SHARDS)]
        self._sizes = [0] * SHARDS
        self._lock = threading.Lock()

    def get(self, user: bytes) -> bytes | None:
        """The user's, or None."""
        return self._shards[hash(user) % SHARDS].get(user)

    def put(self, user: bytes, packed: bytes) -> None:
        """Keep this one, and forget some others where there is no room."""
        number = hash(user) % SHARDS
        shard, more = self._shards[number], OVERHEAD + len(packed)
        with self._lock:
            self._forget(user)
            if more > self._room:
                return
            if self._sizes[number] + more > self._room:
                shard.clear()
                self._sizes[number] = 0
            shard[user] = packed
            self._sizes[number] += more

    def forget(self, users: Iterable[bytes]) -> None:
        """What was kept of these users is not what the store has any more."""
        with self._lock:
            for user in users:
                self._forget(user)

    def _forget(self, user: bytes) -> None:
        number = hash(user) % SHARDS
        packed = self._shards[number].pop(user, None)
        if packed is not None:
            self._sizes[number] -= OVERHEAD + len(packed)

    def clear(self) -> None:
        """Forget all."""
        for number, shard in enumerate(self._shards):
            with self._lock:
                shard.clear()
                self._sizes[number] = 0

    @property
    def size(self) -> int:
        """Bytes in use."""
        return sum(self._sizes)

    @property
    def full(self) -> bool:
        """Another user would likely push others out."""
        return self.size >= 0.95 * self._room * SHARDS

    def __len__(self) -> int:
        return sum(map(len, self._shards))
