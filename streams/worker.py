"""The worker: a Faust application whose agent hands the records of `clicks` to a pipeline for each partition.

Faust gives the consumer, its group and the hand-over of partitions. What is applied is decided by checkpoints
on the output topics alone; the offsets Faust commits are for lag monitors to read.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, cast

import faust
from confluent_kafka import KafkaException, Producer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from models import events
from models.bundle import Bundle
from models.errors import UserError
from models.store import destroy
from models.topics import Topics
from streams.pipeline import Pipeline, transactional_id
from streams.recovery import Place
from streams.security import credentials
from streams.topics import Client, cluster_id, require

log = logging.getLogger("insession.worker")


FETCH_WAIT_MS = 25
"""How long a fetch waits for records. Kafka answers as soon as there are any; the embedded broker only then, and Faust's 1,500 ms would be each click's delay."""


class Thread(driver.AIOKafkaConsumerThread):
    """Faust's consumer, told to leave out what aborted transactions wrote: by itself Faust reads it."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer


class Consumer(driver.Consumer):
    """Faust's consumer, which goes on from our checkpoints and not from the offsets of its group."""

    def _new_consumer_thread(self) -> Thread:
        return Thread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        offsets = {
            TP(tp.topic, tp.partition): pipeline.checkpoint.next_offset
            for tp in self.assignment()
            if (pipeline := cast(App, self.app).worker.pipelines.get(tp.partition)) is not None
        }
        if offsets:
            await self.seek_wait(offsets)
            self._committed_offset.update(offsets)


class Transport(driver.Transport):
    """Faust's transport with that consumer."""

    Consumer = Consumer


class App(faust.App):
    """Faust's application with that transport."""

    worker: Worker

    def _crash(self, reason: BaseException) -> None:
        fail(reason)  # Faust would live on without the part that crashed.

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)


class Worker:
    """The pipelines of the partitions that this process holds, through rebalances, until it ends."""

    def __init__(
        self,
        *,
        client: Client,
        topics: Topics,
        bundle: Bundle,
        state: Path,
        application: str,
        afresh: bool = False,
    ) -> None:
        """Raises UserError where the topics are not as they must be, or another worker has the state folder."""
        self.client = client
        self.topics = topics
        self.bundle = bundle
        self.application = application
        self.afresh = afresh
        self.found = require(client, topics)
        self.cluster = cluster_id(client)
        self.state = state
        self.pipelines: dict[int, Pipeline] = {}
        self._lock = _lock(state)
        self._changing = asyncio.Lock()
        self.app = self._app()

    def _app(self) -> App:
        servers = str(self.client["bootstrap.servers"]).split(",")
        app = App(
            id=f"{self.application}-{self.topics.prefix}worker",
            broker=[f"kafka://{server.strip()}" for server in servers],
            broker_credentials=credentials(self.client),
            # A join or a takeover within seconds; Faust's own values make it a minute.
            broker_rebalance_timeout=4,
            broker_session_timeout=6,
            broker_heartbeat_interval=1,
            consumer_auto_offset_reset="earliest",
            topic_allow_declare=False,
            topic_disable_leader=True,
            stream_wait_empty=False,
            store="memory://",
            datadir=str(self.state / "faust"),
            web_enabled=False,
        )
        app.worker = self
        clicks = app.topic(
            self.topics.clicks,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            allow_empty=True,
        )

        @app.agent(clicks, name=f"{self.application}.clicks")
        async def apply(stream: Any) -> None:
            async for event in stream.noack().events():
                pipeline = self.pipelines.get(event.message.partition)
                if pipeline is not None:
                    await pipeline.queue.put(event)

        app.on_partitions_revoked.connect(self._revoked)
        app.on_rebalance_complete.connect(self._assigned)
        return app

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT; then finish the batch, commit, and leave the group."""
        ending = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ending.set)
        self.app.finalize()
        started = asyncio.create_task(self.app.start())
        started.add_done_callback(fail_with)
        ticks = asyncio.create_task(self._tick())
        await ending.wait()
        ticks.cancel()
        async with self._changing:
            await self._stop()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.app.stop(), timeout=10)
        log.info("stopped")

    async def _revoked(self, *_: object, **__: object) -> None:
        async with self._changing:
            await self._stop()

    async def _assigned(self, *_: object, **__: object) -> None:
        """Take over what is assigned, kept partitions too: nobody knows who wrote while the group was changing."""
        async with self._changing:
            await self._stop()
            assigned = sorted(
                tp.partition for tp in self.app.consumer.assignment() if tp.topic == self.topics.clicks
            )
            for folder in self.state.glob("partition-*"):
                if folder.name.removeprefix("partition-") not in map(str, assigned):
                    destroy(folder)
            started = time.monotonic()
            pipelines = {number: self._pipeline(number) for number in assigned}
            try:
                await asyncio.gather(
                    *(
                        pipeline.start(fail_with, now=int(time.time() * 1000), afresh=self.afresh)
                        for pipeline in pipelines.values()
                    )
                )
            except Exception as error:
                fail(error)
            self.pipelines = pipelines
            seconds = time.monotonic() - started
            held = ",".join(map(str, assigned)) or "none"
            # The one line on stdout: whoever started the process waits for it.
            print(f"worker ready: partitions {held} after {seconds:.1f} s", flush=True)

    async def _stop(self) -> None:
        pipelines, self.pipelines = self.pipelines, {}
        await asyncio.gather(*(pipeline.stop() for pipeline in pipelines.values()))

    def _pipeline(self, number: int) -> Pipeline:
        place = Place(
            client=self.client,
            topics=self.topics,
            cluster=self.cluster,
            found=self.found,
            partition=number,
            folder=self.state / f"partition-{number}",
        )
        return Pipeline(place, self.bundle, transactional_id(self.application, self.topics.prefix, number))

    async def _tick(self) -> None:
        """Move the watermark of a partition that was live and fell silent, so that its sessions close."""
        producer = Producer({**self.client, "log_level": 0})
        while True:
            await asyncio.sleep(1)
            for number, pipeline in self.pipelines.items():
                if 0 < pipeline.live_until < time.monotonic():
                    pipeline.live_until = 0
                    now = int(time.time() * 1000)
                    tick = events.Tick(event_id=f"tick-{number}-{now}", timestamp=now)
                    producer.produce(
                        self.topics.clicks, value=events.encode(tick), partition=number, timestamp=now
                    )
            producer.poll(0)


def _lock(state: Path) -> Any:
    """Hold the state folder for this process."""
    state.mkdir(parents=True, exist_ok=True)
    lock = (state / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(
            f"another worker keeps its states in {state}; give this one a folder of its own with --state"
        ) from None
    return lock


def fail(error: BaseException) -> None:
    """End the process at once: whatever is not committed is read again by whoever takes over."""
    if isinstance(error, KafkaException):
        message = f"Kafka: {error.args[0].str()}"
    elif isinstance(error, UserError):
        message = str(error)
    else:
        log.error("the worker failed", exc_info=error)
        message = f"{type(error).__name__}: {error}"
    print(f"insession: {message}", file=sys.stderr, flush=True)
    os._exit(2 if isinstance(error, UserError) else 1)


def fail_with(task: asyncio.Task[None]) -> None:
    """End the process where a task has failed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        fail(error)


def run(
    *, client: Client, topics: Topics, bundle: Bundle, state: Path, application: str, afresh: bool = False
) -> None:
    """Run a worker in this process until it is told to end."""

    async def main() -> None:
        worker = Worker(
            client=client, topics=topics, bundle=bundle, state=state, application=application, afresh=afresh
        )
        await worker.run()

    asyncio.run(main())
    # Faust leaves threads behind that would hold the interpreter for seconds; all that counts is committed.
    sys.stdout.flush()
    os._exit(0)
