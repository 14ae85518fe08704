"""The users' states as requests see them: read from the store, and waited for. Belongs to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from models.recording import partition_of
from models.states import Checkpoint, history_key, user_key
from models.store import StoreError
from models.visitor import Visitor
from serving import closed, vectors
from serving.memory import Memory


class Unreadable(Exception):
    """A user's records are of a version that this program does not read, or the store fails."""


class States:
    """What has been read of `user-embeddings`. `get` gives the store's value of a key."""

    def __init__(
        self,
        get: Callable[[bytes], bytes | None],
        held: frozenset[int] | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._get = get
        self.memory = memory if memory is not None else Memory(0)
        self.held = held
        """The partitions of `clicks` whose users are here; None: all."""
        self.partitions = 0
        """How many `clicks` has; 0 while that is not known."""
        self.applied: dict[int, Checkpoint] = {}
        """How far each partition of `clicks` is applied in the states that `visitor` gives."""
        self._waiting: dict[int, dict[asyncio.Future[None], int]] = {}

    def visitor(self, user_id: str, bundle: str, *, whole: bool = False) -> Visitor | None:
        """The user's records, the vector in the space of `bundle` where there is one by now; None where there are none.

        They may be without what is not needed to rank, but not where the `whole` is asked for. Raises Unreadable where
        they can't be read.
        """
        user = user_id.encode()
        if not whole and (packed := self.memory.get(user)) is not None:
            visitor = Visitor.unpacked(packed)
            if visitor.known.bundle == bundle:
                return visitor
        try:
            value = self._get(user_key(user))
            if value is None:
                return None
            # In this order: a session that leaves the first goes to the second, and from there, once it is in it, to
            # the third. One may be met twice, but none is missed.
            kept = self._get(closed.closed_key(user))
            history = self._get(history_key(user))
        except StoreError as error:
            raise Unreadable(str(error)) from None
        return self.remember(user, bundle, value, history, kept)

    def remember(
        self, user: bytes, bundle: str, embedding: bytes, history: bytes | None, kept: bytes | None
    ) -> Visitor:
        """The visitor of these records, just read from the store. Raises Unreadable.

        Should they not be the newest any more, `advance` comes after this: it is called in the loop that this is called
        in, or this by the thread that writes.
        """
        try:
            visitor = Visitor(embedding, history, kept)
            if visitor.known.bundle != bundle:
                visitor.known.within(bundle, self._get(vectors.space(bundle) + user))
            packed = visitor.packed
        except (ValueError, StoreError) as error:
            raise Unreadable(str(error)) from None
        if packed is not None:
            self.memory.put(user, packed)
        return visitor

    def partition(self, user_id: str) -> int | None:
        """Where Kafka's default puts the user's events; None while the number of partitions is not known."""
        return partition_of(user_id.encode(), self.partitions) if self.partitions else None

    def set(self, partitions: int, applied: Mapping[int, Checkpoint]) -> None:
        """Begin with these positions, in place of all before."""
        self.partitions = partitions
        self.applied = {}
        self.advance(applied)

    def advance(self, applied: Mapping[int, Checkpoint], users: Iterable[bytes] = ()) -> None:
        """The store now shows these partitions so far, and other records of these users: whoever waited for that goes on."""
        if len(self.memory):
            self.memory.forget(users)
        for partition, checkpoint in applied.items():
            self.applied[partition] = checkpoint
            for future, offset in list(self._waiting.get(partition, {}).items()):
                if offset < checkpoint.next_offset and not future.done():
                    future.set_result(None)

    async def reached(self, partition: int, offset: int, seconds: float) -> bool:
        """Whether the event at `offset` is included, waiting for it at most so long."""
        checkpoint = self.applied.get(partition)
        if checkpoint is not None and offset < checkpoint.next_offset:
            return True
        if seconds <= 0:
            return False
        waiting = self._waiting.setdefault(partition, {})
        future = asyncio.get_running_loop().create_future()
        waiting[future] = offset
        try:
            await asyncio.wait_for(future, seconds)
        except TimeoutError:
            return False
        finally:
            del waiting[future]
        return True
