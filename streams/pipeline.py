"""One partition of `clicks` on this worker: take what has come, apply it, commit it in one transaction, keep it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from models.dead_letters import cut
from models.partition import Changes, Partition
from models.states import Checkpoint
from models.store import Store
from models.topics import CHECKPOINT_KEY, MESSAGE_BYTES, OLDEST
from streams.catalogue import Catalogue
from streams.metrics import Metrics
from streams.reader import Stopped
from streams.recovery import Place, recover
from streams.states import Overlay, Standing, read_standing, users, write

BATCH = 1_000
"""A batch ends with the fetch that brings it to so many records."""
FULL_RECORDS, FULL_BYTES = 4 * BATCH, 32 << 20
"""With so much waiting no more is fetched, until half of it is left."""
REST_SECONDS = 0.004
"""From a commit to the next transaction: begun while the broker still writes the last one's markers it is refused, and librdkafka tries again only 20 ms later. What comes meanwhile shares a transaction."""
COMMIT_SECONDS = 30.0
LIVE_MS = 60_000
"""A partition is live where its newest record was so close to the clock when it was read."""
RECOMPUTED, RECOMPUTED_IDLE = 100, 1_000
"""With a new bundle, so many users' vectors are computed again beside a batch, and with nothing else to do."""

T = TypeVar("T")


def transactional_id(application: str, topics_prefix: str, partition: int) -> str:
    """Whoever holds this partition writes under this id, so that a newer holder fences an older one."""
    # A slash stands in no name: no two of them can run into one another.
    return f"{application}/{topics_prefix}/{partition}"


class Pipeline:
    """Takes over a partition (`start`), is handed what was fetched of it (`put`), and gives it back (`stop`)."""

    def __init__(
        self,
        place: Place,
        catalogue: Catalogue,
        metrics: Metrics,
        transactional_id: str,
        *,
        on_end: Callable[[asyncio.Task[None]], None],
        on_full: Callable[[], None],
        on_room: Callable[[], None],
    ) -> None:
        """`on_end` is called with a task that works here when it ends; `on_full` and `on_room` when no more should be fetched, and again when it should."""
        self.place = place
        self.catalogue = catalogue
        self.metrics = metrics
        self.transactional_id = transactional_id
        self.live_until = 0.0
        """By the monotonic clock: where no record comes before, the partition has fallen silent."""
        self.checkpoint: Checkpoint
        """What is applied, and committed or about to be."""
        self._on_end, self._on_full, self._on_room = on_end, on_full, on_room
        self._fetches: deque[Any] = deque()
        self._waiting = self._bytes = 0
        """Records in them, and bytes."""
        self._full = False
        self._arrived = asyncio.Event()
        """There is something to do: fetches, or vectors to compute again."""
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix=f"partition-{place.partition}")
        self._task: asyncio.Task[None] | None = None
        self._producer: Producer
        self._store: Store | None = None
        self._standing: Standing
        self._overlay: Overlay
        self._partition: Partition
        self._recomputed: bytes | None = None
        """The last user whose vector was brought to the bundle in use; None once all are."""

    async def start(self, *, afresh: bool) -> None:
        """Fence the former holder, catch up, and begin.

        Raises UserError where the states can't be continued, streams.reader.Stopped where `stop` was called meanwhile.
        """
        await self._in_thread(lambda: self._take_over(afresh))
        if self._stopping.is_set():
            raise Stopped
        self._task = asyncio.create_task(self._run(), name=f"partition-{self.place.partition}")
        self._task.add_done_callback(self._on_end)

    def put(self, fetch: Any) -> None:
        """Take what a fetch brought: a Faust event whose value is the list of records."""
        self._fetches.append(fetch)
        self._waiting += len(fetch.value)
        self._bytes += fetch.message.serialized_value_size
        if not self._full and (self._waiting >= FULL_RECORDS or self._bytes >= FULL_BYTES):
            self._full = True
            self._on_full()
        self._arrived.set()

    def wake(self) -> None:
        """There is a new bundle."""
        self._arrived.set()

    def interrupt(self) -> None:
        """Let `start` give up, as the partition may be somebody else's soon."""
        self._stopping.set()

    async def stop(self) -> None:
        """Finish what is being committed, and give the store back. What was not yet taken is read again by the next holder."""
        self.interrupt()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)
        if self._store is not None:
            self._store.close()

    def _take_over(self, afresh: bool) -> None:
        self._producer = Producer(
            {
                **self.place.client,
                "transactional.id": self.transactional_id,
                "transaction.timeout.ms": 60_000,
                "message.max.bytes": MESSAGE_BYTES,
                "compression.type": "lz4",
                "linger.ms": 0,
                "log_level": 0,
            }
        )
        self._producer.init_transactions(COMMIT_SECONDS)
        self._store, self._standing = recover(
            self.place, self._producer, afresh=afresh, stopped=self._stopping.is_set
        )
        assert self._standing.checkpoint is not None
        self.checkpoint = self._standing.checkpoint
        self._overlay = Overlay(self._store)
        self._partition = Partition(
            self.place.partition,
            bundle=self.catalogue.bundle,
            states=self._overlay,
            watermark=self.checkpoint.watermark,
        )
        self._recomputed = None if self._standing.bundle == self.catalogue.bundle.name else b""
        if abs(time.time() * 1000 - self.checkpoint.watermark) <= self._partition.windows.grace:
            self._lives()  # It was live when its last holder left it.

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def _run(self) -> None:
        committing: asyncio.Task[None] | None = None
        more = True  # What was due at the checkpoint's watermark closes before the next record.
        try:
            while True:
                fetches = [] if more else await self._take(committing)
                # What was read again after a rebalance and is applied already is left out.
                next_offset = self.checkpoint.next_offset
                records = [r for fetch in fetches for r in fetch.value if r.offset >= next_offset]
                next_offset = records[-1].offset + 1 if records else next_offset
                changes, bundle = await self._in_thread(lambda records=records: self._apply(records))  # type: ignore[misc]
                if committing is not None:
                    # Cancelled here, the commit goes on: whoever cancels waits for it.
                    await asyncio.shield(committing)
                more = changes.more
                if records or changes.store or bundle != self._standing.bundle:
                    self._overlay.pending = changes.store
                    before, self.checkpoint = (
                        self.checkpoint,
                        msgspec.structs.replace(
                            self.checkpoint, next_offset=next_offset, watermark=changes.watermark
                        ),
                    )
                    standing = msgspec.structs.replace(
                        self._standing, checkpoint=self.checkpoint, bundle=bundle
                    )
                    committing = asyncio.create_task(
                        self._commit(changes, standing, onto=before, fetches=fetches, records=records)
                    )
                    # A failure is noticed at once, and not when the next record comes.
                    committing.add_done_callback(self._on_end)
        finally:
            if committing is not None:
                await asyncio.shield(committing)

    async def _take(self, committing: asyncio.Task[None] | None) -> list[Any]:
        """The next fetches, about a batch; none where vectors are to be computed again. While a commit is under way only a full batch is worth starting."""
        while not (self._fetches or self._recomputed is not None or self._other_bundle):
            self._arrived.clear()
            await self._arrived.wait()
        if self._waiting < BATCH and committing is not None and not committing.done():
            await asyncio.wait([committing])
        taken, records = [], 0
        while self._fetches and records < BATCH:
            taken.append(self._fetches.popleft())
            records += len(taken[-1].value)
            self._bytes -= taken[-1].message.serialized_value_size
        self._waiting -= records
        if self._full and self._waiting <= FULL_RECORDS // 2 and self._bytes <= FULL_BYTES // 2:
            self._full = False
            self._on_room()
        return taken

    @property
    def _other_bundle(self) -> bool:
        return self.catalogue.bundle is not self._partition.bundle

    def _apply(self, records: list[Any]) -> tuple[Changes, str]:
        """Apply the records; what they change, and of which bundle all vectors are then ("" where some are not)."""
        started = time.perf_counter()
        partition, bundle = self._partition, self.catalogue.bundle
        if bundle is not partition.bundle:
            # The others from the next batch on: until then the store lacks what is being committed.
            partition.bundle, self._recomputed = bundle, b""
        elif self._recomputed is not None:
            self._recompute(RECOMPUTED if records else RECOMPUTED_IDLE)
        partition.load(record.key for record in records)
        apply = partition.apply
        for record in records:
            apply(record.offset, record.timestamp, record.key, record.value)
        if records and abs(time.time() * 1000 - records[-1].timestamp) <= LIVE_MS:
            self._lives()
        changes = partition.flush()
        self.metrics.took("apply", time.perf_counter() - started)
        return changes, bundle.name if self._recomputed is None else ""

    def _recompute(self, count: int) -> None:
        """Bring the vectors of the next users to the bundle in use: `flush` gives whoever is loaded one of it."""
        assert self._store is not None
        next_users = users(self._store, self._recomputed or b"", count)
        self.metrics.recomputed.inc(self._partition.load(next_users))
        self._recomputed = next_users[-1] if len(next_users) == count else None

    def _lives(self) -> None:
        self.live_until = time.monotonic() + LIVE_MS / 1000

    async def _commit(
        self,
        changes: Changes,
        standing: Standing,
        *,
        onto: Checkpoint,
        fetches: list[Any],
        records: list[Any],
    ) -> None:
        await self._in_thread(lambda: self._transact(changes, standing, onto, records))
        for fetch in fetches:
            fetch.ack()
        self.metrics.applied(len(records), changes.counts)
        await asyncio.sleep(REST_SECONDS)

    def _transact(self, changes: Changes, standing: Standing, onto: Checkpoint, records: list[Any]) -> None:
        """Publish and commit, then write the store: before, a crash between the two would lose what was not published."""
        assert standing.checkpoint is not None
        positions = self._publish(changes, standing.checkpoint, records)
        self._keep(changes, msgspec.structs.replace(standing, **positions), onto)

    def _publish(self, changes: Changes, checkpoint: Checkpoint, records: list[Any]) -> dict[str, int]:
        """One transaction with all that changed, the checkpoint last; the positions behind it on the compacted outputs."""
        started = time.perf_counter()
        topics, number = self.place.topics, self.place.partition
        positions: dict[str, int] = {}

        def standing(name: str) -> Callable[[KafkaError | None, Message], None]:
            def on_delivery(error: KafkaError | None, message: Message) -> None:
                if error is None:  # else the commit fails
                    positions[name] = (message.offset() or 0) + 1

            return on_delivery

        in_histories, in_embeddings = standing("histories"), standing("embeddings")
        produce = self._producer.produce
        self._producer.begin_transaction()
        for key, value in changes.histories.items():
            produce(topics.user_histories, key=key, value=value, partition=number, on_delivery=in_histories)
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
            # How fresh what readers have is depends on when the records came, of which values say nothing.
            headers=[(OLDEST, b"%d" % min(r.timestamp for r in records))] if records else None,
            partition=number,
            on_delivery=in_embeddings,
        )
        published = time.perf_counter()
        self._producer.commit_transaction(COMMIT_SECONDS)
        self.metrics.took("publish", published - started)
        self.metrics.took("commit", time.perf_counter() - published)
        return positions

    def _keep(self, changes: Changes, standing: Standing, onto: Checkpoint) -> None:
        """Write what is committed to the store, onto the checkpoint that the batch started from."""
        started = time.perf_counter()
        assert self._store is not None
        there = read_standing(self._store).checkpoint
        if there not in (None, onto):
            raise RuntimeError(f"the store stands at {there}, and not at {onto}")
        self._standing = msgspec.structs.replace(standing, written_at=int(time.time() * 1000))
        write(self._store, changes.store, self._standing)
        self.metrics.took("store", time.perf_counter() - started)
