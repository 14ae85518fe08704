"""Faust with a consumer of our own: committed records only, taken a fetch at a time, from our checkpoints on.

Faust hands records on one by one, through some tens of calls each. Here what one fetch brought of a partition is
one event, whose value is the list of its records, so that Faust's cost is a fetch's and not a record's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import faust
from aiokafka.errors import NoOffsetForPartitionError
from aiokafka.protocol.fetch import FetchRequest
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

FETCH_WAIT_MS = 25
"""How long a fetch waits for records. Kafka answers as soon as there are any; the embedded broker only then, and Faust's 1,500 ms would be each click's delay."""
FETCH_SECONDS = 0.008
"""From one fetch to the next, at least: at 1,000 clicks/s there would be one for nearly every click, which costs broker and worker more than the click. The first click after a pause is not held back."""
FETCH_BYTES = 1 << 20


class Thread(driver.AIOKafkaConsumerThread):
    """Faust's consumer, told to leave out what aborted transactions wrote: by itself Faust reads it."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._client.send = _paced(consumer._client.send)
        return consumer


def _paced(send: Any) -> Any:
    """A client's `send` that fetches from a broker no more often than every FETCH_SECONDS."""
    sent: dict[int, float] = {}

    async def paced(node: int, request: Any, **options: Any) -> Any:
        if isinstance(request, FetchRequest):
            rest = sent.get(node, 0.0) + FETCH_SECONDS - time.monotonic()
            if rest > 0:
                await asyncio.sleep(rest)
            sent[node] = time.monotonic()
        return await send(node, request, **options)

    return paced


class Consumer(driver.Consumer):
    """Faust's consumer, which gives a fetch's records as one message and goes on from our checkpoints."""

    app: App

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._room = asyncio.Event()

    def _new_consumer_thread(self) -> Thread:
        return Thread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        offsets = {TP(self.app.clicks, number): offset for number, offset in self.app.positions().items()}
        if offsets:
            await self.seek_wait(offsets)
            self._committed_offset.update(offsets)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: between two fetches' last offsets lie their records."""

    def _new_offset(self, tp: TP) -> int | None:
        """What to commit, for lag monitors to read. Fetches are acknowledged in their order, when they are committed."""
        acked = self._acked[tp]
        if not acked:
            return None
        newest = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return newest + 1

    def on_buffer_drop(self, tp: TP) -> None:
        super().on_buffer_drop(tp)
        self._room.set()

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """The next fetch of the partitions that have room: one message for each."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]
        generation = self.app.consumer_generation_id
        active = self._get_active_partitions()
        if not active:
            # Faust would sleep for a second here, whenever the only partition's buffer is full.
            self._room.clear()
            await self.wait(self._room, timeout=timeout)  # type: ignore[arg-type]
            return
        try:
            fetched = await self._getmany(active_partitions=active, timeout=timeout)
        except NoOffsetForPartitionError:
            # A fetch that outlasts its assignment is asked where the next one goes on, before that was sought.
            if self.flow_active and generation == self.app.consumer_generation_id:
                raise
            return
        for tp, records in fetched.items():
            # What was fetched for an assignment that is over is fetched again: each begins with a seek.
            if self.should_stop or not self.flow_active or generation != self.app.consumer_generation_id:
                return
            yield tp, _message(tp, records, generation)


def _message(tp: TP, records: list[Any], generation: int) -> ConsumerMessage:
    """A message that stands for all of `records`: acknowledging it, at the last one's offset, acknowledges them."""
    last = records[-1]
    return ConsumerMessage(
        tp.topic,
        tp.partition,
        last.offset,
        last.timestamp / 1000,
        last.timestamp_type,
        [],
        None,
        records,  # type: ignore[arg-type]
        last.checksum,
        0,
        sum(record.serialized_value_size for record in records),
        tp,
        generation_id=generation,
    )


class Transport(driver.Transport):
    """Faust's transport with that consumer."""

    Consumer = Consumer


class App(faust.App):
    """Faust's application with that transport. `positions` says where to go on in each partition of `clicks`; `on_crash` ends the process."""

    clicks: str
    positions: Callable[[], Mapping[int, int]]
    on_crash: Callable[[BaseException], None]

    def _crash(self, reason: BaseException) -> None:
        self.on_crash(reason)  # Faust would live on without the part that crashed.

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)


class Records(faust.Schema[Any, Any]):
    """Takes what a fetch brought as it is. Records are decoded where what can't be read becomes a dead letter."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> None:
        return None

    def loads_value(self, app: Any, message: Any, **_: Any) -> list[Any]:
        return message.value  # type: ignore[no-any-return]
