"""One partition of `clicks` on this worker: take what has come, apply it, commit it in one transaction, keep it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from models.bundle import Bundle
from models.dead_letters import cut
from models.partition import Changes, Partition
from models.states import Checkpoint
from models.store import Store
from models.topics import CHECKPOINT_KEY
from streams.recovery import Place, recover
from streams.states import Overlay, Standing, read_standing, write

BATCH = 1_000
"""A batch ends with the fetch that brings it to so many records."""
FULL, ROOM = 4 * BATCH, 2 * BATCH
"""With so many records waiting no more are fetched, until only so many are left."""
GATHER_SECONDS = 0.003
"""With nothing to do, wait so long for company: a transaction for each single click keeps the broker busy."""
COMMIT_SECONDS = 30.0
LIVE_MS = 60_000
"""A partition is live where its newest record was so close to the clock when it was read."""

T = TypeVar("T")


def transactional_id(application: str, topics_prefix: str, partition: int) -> str:
    """Whoever holds this partition writes under this id, so that a newer holder fences an older one."""
    return f"{application}-{topics_prefix}{partition}"


class Pipeline:
    """Takes over a partition (`start`), is handed what was fetched of it (`put`), and gives it back (`stop`)."""

    def __init__(
        self,
        place: Place,
        bundle: Bundle,
        transactional_id: str,
        *,
        on_full: Callable[[], None],
        on_room: Callable[[], None],
    ) -> None:
        """`on_full` and `on_room` are called when no more should be fetched, and again when it should."""
        self.place = place
        self.bundle = bundle
        self.transactional_id = transactional_id
        self.live_until = 0.0
        """By the monotonic clock: where no record comes before, the partition has fallen silent."""
        self.checkpoint: Checkpoint
        self._on_full, self._on_room = on_full, on_room
        self._fetches: deque[Any] = deque()
        self._waiting = 0
        """Records in them."""
        self._arrived = asyncio.Event()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix=f"partition-{place.partition}")
        self._task: asyncio.Task[None] | None = None
        self._producer: Producer
        self._store: Store | None = None
        self._standing: Standing
        self._overlay: Overlay
        self._partition: Partition

    async def start(self, on_end: Callable[[asyncio.Task[None]], None], *, now: int, afresh: bool) -> None:
        """Fence the former holder, catch up, and begin. Raises UserError where the states can't be continued.

        `on_end` is called with the task that works from then on, when it ends. `now` is the clock, ms.
        """
        await self._in_thread(lambda: self._take_over(now, afresh))
        self._task = asyncio.create_task(self._run(), name=f"partition-{self.place.partition}")
        self._task.add_done_callback(on_end)

    def put(self, fetch: Any) -> None:
        """Take what a fetch brought: a Faust event whose value is the list of records."""
        self._fetches.append(fetch)
        if self._waiting < FULL <= self._waiting + len(fetch.value):
            self._on_full()
        self._waiting += len(fetch.value)
        self._arrived.set()

    async def stop(self) -> None:
        """Finish what is being committed, and give the store back. What was not yet taken is read again by the next holder."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)
        if self._store is not None:
            self._store.close()

    def _take_over(self, now: int, afresh: bool) -> None:
        self._producer = Producer(
            {
                **self.place.client,
                "transactional.id": self.transactional_id,
                "transaction.timeout.ms": 60_000,
                "compression.type": "lz4",
                "linger.ms": 0,
                "log_level": 0,
            }
        )
        self._producer.init_transactions(COMMIT_SECONDS)
        self._store, self.checkpoint = recover(self.place, self._producer, now=now, afresh=afresh)
        self._standing = read_standing(self._store)
        self._overlay = Overlay(self._store)
        self._partition = Partition(
            self.place.partition,
            bundle=self.bundle,
            states=self._overlay,
            watermark=self.checkpoint.watermark,
        )

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def _run(self) -> None:
        committing: asyncio.Future[None] | None = None
        more = True  # What was due at the checkpoint's watermark closes before the next record.
        try:
            while True:
                fetches = [] if more else await self._take(committing)
                # What was read again after a rebalance and is applied already is left out.
                next_offset = self.checkpoint.next_offset
                records = [r for fetch in fetches for r in fetch.value if r.offset >= next_offset]
                next_offset = records[-1].offset + 1 if records else next_offset
                changes = await self._in_thread(lambda records=records: self._apply(records))  # type: ignore[misc]
                if committing is not None:
                    await committing
                more = changes.more
                if records or changes.store:
                    self._overlay.pending = changes.store
                    self.checkpoint = msgspec.structs.replace(
                        self.checkpoint, next_offset=next_offset, watermark=changes.watermark
                    )
                    committing = asyncio.ensure_future(self._commit(changes, self.checkpoint, fetches))
        finally:
            if committing is not None:
                await asyncio.shield(committing)

    async def _take(self, committing: asyncio.Future[None] | None) -> list[Any]:
        """The next fetches, about a batch. While a commit is under way only a full batch is worth starting."""
        await self._arrived.wait()
        await asyncio.sleep(GATHER_SECONDS)
        if committing is not None and not committing.done() and self._waiting < BATCH:
            await asyncio.wait([committing])
        taken, records = [], 0
        while self._fetches and records < BATCH:
            taken.append(self._fetches.popleft())
            records += len(taken[-1].value)
        if self._waiting > ROOM >= self._waiting - records:
            self._on_room()
        self._waiting -= records
        if not self._fetches:
            self._arrived.clear()
        return taken

    def _apply(self, records: list[Any]) -> Changes:
        self._partition.load(record.key for record in records)
        apply = self._partition.apply
        for record in records:
            apply(record.offset, record.timestamp, record.key, record.value)
        if records and abs(time.time() * 1000 - records[-1].timestamp) <= LIVE_MS:
            self.live_until = time.monotonic() + LIVE_MS / 1000
        return self._partition.flush()

    async def _commit(self, changes: Changes, checkpoint: Checkpoint, fetches: list[Any]) -> None:
        await self._in_thread(lambda: self._transact(changes, checkpoint))
        for fetch in fetches:
            fetch.ack()

    def _transact(self, changes: Changes, checkpoint: Checkpoint) -> None:
        """Publish and commit, then write the store: before, a crash between the two would lose what was not published."""
        topics, number = self.place.topics, self.place.partition
        produce = self._producer.produce
        self._producer.begin_transaction()
        for key, value in changes.histories.items():
            produce(
                topics.user_histories, key=key, value=value, partition=number, on_delivery=self._on_delivery
            )
        for key, session in changes.sessions:
            produce(topics.sessions, key=key, value=session, partition=number)
        for letter in changes.dead:
            produce(
                topics.dead_letters,
                key=cut(letter.key),
                value=cut(letter.value),
                headers=letter.headers(topics.clicks, number),
                partition=number,
            )
        for key, value in changes.embeddings.items():
            produce(topics.user_embeddings, key=key, value=value, partition=number)
        produce(
            topics.user_embeddings,
            key=CHECKPOINT_KEY,
            value=msgspec.json.encode(checkpoint),
            partition=number,
            on_delivery=self._on_delivery,
        )
        self._producer.commit_transaction(COMMIT_SECONDS)
        self._standing = msgspec.structs.replace(
            self._standing, checkpoint=checkpoint, written_at=int(time.time() * 1000)
        )
        assert self._store is not None
        write(self._store, changes.store, self._standing)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            raise KafkaException(error)
        position = int(message.offset() or 0) + 1
        if message.topic() == self.place.topics.user_embeddings:
            self._standing = msgspec.structs.replace(self._standing, embeddings=position)
        else:
            self._standing = msgspec.structs.replace(self._standing, histories=position)
