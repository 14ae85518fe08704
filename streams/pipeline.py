"""One partition of `clicks` on this worker: take what has come, apply it, commit it in one transaction, keep it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from models.bundle import Bundle
from models.partition import DEAD_LETTER_BYTES, Changes, Checkpoint, Partition
from models.store import Store
from models.topics import CHECKPOINT_KEY
from streams.recovery import Place, recover
from streams.states import Overlay, read_standing, write

BATCH = 1_000
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
    """Takes over a partition (`start`), is handed its events (`queue`), and gives it back (`stop`)."""

    def __init__(self, place: Place, bundle: Bundle, transactional_id: str) -> None:
        self.place = place
        self.bundle = bundle
        self.transactional_id = transactional_id
        self.queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=4 * BATCH)
        self.live_until = 0.0
        """By the monotonic clock: where no record comes before, the partition has fallen silent."""
        self._threads = ThreadPoolExecutor(2, thread_name_prefix=f"partition-{place.partition}")
        self._task: asyncio.Task[None] | None = None
        self._producer: Producer
        self._store: Store | None = None
        self._overlay: Overlay
        self._partition: Partition
        self._positions: dict[str, int] = {}
        self.checkpoint: Checkpoint

    async def start(self, on_end: Callable[[asyncio.Task[None]], None], *, now: int, afresh: bool) -> None:
        """Fence the former holder, catch up, and begin. Raises UserError where the states can't be continued.

        `on_end` is called with the task that works from then on, when it ends. `now` is the clock, ms.
        """
        await self._in_thread(lambda: self._take_over(now, afresh))
        self._task = asyncio.create_task(self._run(), name=f"partition-{self.place.partition}")
        self._task.add_done_callback(on_end)

    async def stop(self) -> None:
        """Finish what is being committed, and give the store back. Events not yet taken are read again by the next holder."""
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
                "log_level": 0,
            }
        )
        self._producer.init_transactions(COMMIT_SECONDS)
        self._store, self.checkpoint = recover(self.place, self._producer, now=now, afresh=afresh)
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
                events = [] if more else await self._take(committing)
                next_offset = events[-1].message.offset + 1 if events else self.checkpoint.next_offset
                changes = await self._in_thread(lambda events=events: self._apply(events))  # type: ignore[misc]
                if committing is not None:
                    await committing
                more = changes.more
                if events or changes.store:
                    self._overlay.pending = changes.store
                    self.checkpoint = msgspec.structs.replace(
                        self.checkpoint, next_offset=next_offset, watermark=changes.watermark
                    )
                    committing = asyncio.ensure_future(self._commit(changes, self.checkpoint, events))
        finally:
            if committing is not None:
                await asyncio.shield(committing)

    async def _take(self, committing: asyncio.Future[None] | None) -> list[Any]:
        """The next events, at most a batch. While a commit is under way only a full batch is worth starting."""
        events = [await self.queue.get()]
        await asyncio.sleep(GATHER_SECONDS)
        if committing is not None and not committing.done() and self.queue.qsize() < BATCH - 1:
            await asyncio.wait([committing])
        while len(events) < BATCH and not self.queue.empty():
            events.append(self.queue.get_nowait())
        # Whatever was read again after a rebalance and is applied already.
        return [event for event in events if event.message.offset >= self.checkpoint.next_offset]

    def _apply(self, events: list[Any]) -> Changes:
        messages = [event.message for event in events]
        self._partition.load(message.key for message in messages)
        for message in messages:
            timestamp = int(message.timestamp * 1000 + 0.5)
            self._partition.apply(message.offset, timestamp, message.key, message.value)
        if messages and abs(time.time() * 1000 - timestamp) <= LIVE_MS:
            self.live_until = time.monotonic() + LIVE_MS / 1000
        return self._partition.flush()

    async def _commit(self, changes: Changes, checkpoint: Checkpoint, events: list[Any]) -> None:
        await self._in_thread(lambda: self._transact(changes, checkpoint))
        for event in events:
            event.ack()

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
                key=letter.key and letter.key[:DEAD_LETTER_BYTES],
                value=letter.value and letter.value[:DEAD_LETTER_BYTES],
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
        assert self._store is not None
        standing = read_standing(self._store)
        embeddings = self._positions.get(topics.user_embeddings, standing.embeddings)
        histories = self._positions.get(topics.user_histories, standing.histories)
        standing = msgspec.structs.replace(
            standing,
            checkpoint=checkpoint,
            embeddings=embeddings,
            histories=histories,
            written_at=int(time.time() * 1000),
        )
        write(self._store, changes.store, standing)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            raise KafkaException(error)
        self._positions[str(message.topic())] = int(message.offset() or 0) + 1
