"""The worker: a Faust application whose agent hands the records of `clicks` to a pipeline for each partition.

Faust gives the consumer, its group and the hand-over of partitions. What is applied is decided by checkpoints
on the output topics alone; the offsets Faust commits are for lag monitors to read.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import gc
import logging
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import uvloop
from aiokafka.errors import OffsetOutOfRangeError
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from faust.types import TP

from models import events
from models.errors import UserError
from models.store import Damaged, StoreError, destroy
from models.topics import Topics
from streams.catalogue import Catalogue
from streams.consumer import FETCH_BYTES, App, Records
from streams.health import serve
from streams.metrics import Metrics
from streams.pipeline import BATCH, Pipeline, transactional_id
from streams.reader import Stopped
from streams.recovery import Place
from streams.security import credentials
from streams.topics import Client, Unreachable, cluster_id, require

log = logging.getLogger("insession.worker")


READING_SECONDS = 60.0
"""How long the listings that stand on their topic may take to read before a worker begins without the rest."""
LOOK_SECONDS = 1.0
"""Between two looks for a new bundle and for partitions that fell silent."""


class Worker:
    """The pipelines of the partitions that this process holds, through rebalances, until it ends."""

    def __init__(
        self,
        *,
        client: Client,
        topics: Topics,
        bundle: Path,
        state: Path,
        application: str,
        afresh: bool = False,
    ) -> None:
        """Raises UserError where the topics are not as they must be, the bundle can't be read, or another worker has the state folder."""
        self.client = client
        self.topics = topics
        self.application = application
        self.afresh = afresh
        self.found = require(client, topics)
        self.cluster = cluster_id(client)
        self.state = state
        self.metrics = Metrics()
        self.catalogue = Catalogue(
            client, topics.listings, self.found[topics.listings].partitions, bundle, fail
        )
        self.pipelines: dict[int, Pipeline] = {}
        self._starting: list[Pipeline] = []
        self._begun: set[int] = set()
        """Partitions begun afresh: once for each is what was asked for."""
        self._ready = self._ending = False
        self._lock = _lock(state)
        self._changing = asyncio.Lock()
        self.app = self._app()
        self._measure()

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
            broker_max_poll_records=BATCH,
            consumer_max_fetch_size=FETCH_BYTES,
            # Whatever is not there to go on from is an error, and not a jump over what is missing.
            consumer_auto_offset_reset="none",
            topic_allow_declare=False,
            topic_disable_leader=True,
            stream_wait_empty=False,
            store="memory://",
            datadir=str(self.state / "faust"),
            web_enabled=False,
        )
        app.on_crash = fail
        app.clicks = self.topics.clicks
        app.positions = lambda: {
            number: pipeline.checkpoint.next_offset for number, pipeline in self.pipelines.items()
        }

        @app.agent(app.topic(self.topics.clicks, schema=Records()), name=f"{self.application}.clicks")
        async def apply(stream: Any) -> None:
            async for fetch in stream.noack().events():
                pipeline = self.pipelines.get(fetch.message.partition)
                if pipeline is not None:
                    pipeline.put(fetch)

        app.on_partitions_revoked.connect(self._revoked)
        app.on_rebalance_complete.connect(self._assigned)
        return app

    def reasons(self) -> list[str]:
        """Why the worker is not ready; nothing where it is."""
        return [] if self._ready else ["taking over partitions"]

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT; then finish the batch, commit, and leave the group."""
        ending = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ending.set)
        self.catalogue.start()
        reading = asyncio.create_task(asyncio.to_thread(self.catalogue.wait_until_read, READING_SECONDS))
        told = asyncio.create_task(ending.wait())
        await asyncio.wait([reading, told], return_when=asyncio.FIRST_COMPLETED)
        if told.done():
            return
        if not reading.result():
            log.warning("beginning before all of %s is read", self.topics.listings)
        self.app.finalize()
        gc.freeze()  # What is loaded now stays: looking through it again is a pause for every click.
        tasks = [asyncio.create_task(work) for work in (self.app.start(), self._look())]
        for task in tasks:
            task.add_done_callback(fail_with)
        await told
        self._ending = True
        tasks[1].cancel()
        self.catalogue.stop()
        self._interrupt()
        async with self._changing:
            await self._stop()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.app.stop(), timeout=10)
        log.info("stopped")

    async def _revoked(self, *_: object, **__: object) -> None:
        self._interrupt()
        async with self._changing:
            await self._stop()

    async def _assigned(self, *_: object, **__: object) -> None:
        """Take over what is assigned, kept partitions too: nobody knows who wrote while the group was changing."""
        async with self._changing:
            await self._stop()
            if self._ending:
                return
            try:
                self.found = await asyncio.to_thread(require, self.client, self.topics)
                self.cluster = await asyncio.to_thread(cluster_id, self.client)
            except UserError as error:
                fail(error)
            assigned = sorted(
                tp.partition for tp in self.app.consumer.assignment() if tp.topic == self.topics.clicks
            )
            for folder in self.state.glob("partition-*"):
                if folder.name.removeprefix("partition-") not in map(str, assigned):
                    with contextlib.suppress(StoreError):  # it is not a store of ours
                        destroy(folder)
            started = time.monotonic()
            pipelines = {number: self._pipeline(number) for number in assigned}
            self._starting = list(pipelines.values())
            try:
                await asyncio.gather(
                    *(
                        pipeline.start(afresh=self.afresh and number not in self._begun)
                        for number, pipeline in pipelines.items()
                    )
                )
            except Stopped:  # Another assignment is under way.
                await asyncio.gather(*(pipeline.stop() for pipeline in pipelines.values()))
                return
            except Exception as error:
                fail(error)
            finally:
                self._starting = []
            self.pipelines = pipelines
            for pipeline in pipelines.values():
                pipeline.wake()  # a new bundle may have come meanwhile
            self._begun |= pipelines.keys()
            self._ready = True
            seconds = time.monotonic() - started
            self.metrics.partitions.set(len(pipelines))
            self.metrics.recovery.set(seconds)
            held = ",".join(map(str, assigned)) or "none"
            # The one line on stdout: whoever started the process waits for it.
            print(f"worker ready: partitions {held} after {seconds:.1f} s", flush=True)

    def _interrupt(self) -> None:
        """Let what is being taken over be: catching up may take longer than the group waits."""
        for pipeline in self._starting:
            pipeline.interrupt()

    async def _stop(self) -> None:
        self._ready = False
        self.metrics.partitions.set(0)
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
        partition = TP(self.topics.clicks, number)
        return Pipeline(
            place,
            self.catalogue,
            self.metrics,
            transactional_id(self.application, self.topics.prefix, number),
            on_end=fail_with,
            on_full=lambda: self.app.consumer.on_buffer_full(partition),
            on_room=lambda: self.app.consumer.on_buffer_drop(partition),
        )

    async def _look(self) -> None:
        """What no record brings about: a new bundle, and a partition that has fallen silent."""
        producer = Producer({**self.client, "log_level": 0})
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if await asyncio.to_thread(self.catalogue.look, self.metrics.refused.inc):
                self._show_bundle()
                for pipeline in self.pipelines.values():
                    pipeline.wake()
            for number, pipeline in self.pipelines.items():
                if 0 < pipeline.live_until < time.monotonic():
                    self._tick(producer, number, pipeline)
            producer.poll(0)

    def _tick(self, producer: Producer, number: int, pipeline: Pipeline) -> None:
        """Move the watermark of a partition that was live and fell silent, so that its sessions close."""

        def on_delivery(error: KafkaError | None, _: Message) -> None:
            if error is not None:  # The next look tries again.
                pipeline.live_until = time.monotonic()

        pipeline.live_until = 0
        now = int(time.time() * 1000)
        tick = events.Tick(event_id=f"tick-{number}-{now}", timestamp=now)
        producer.produce(
            self.topics.clicks,
            value=events.encode(tick),
            partition=number,
            timestamp=now,
            on_delivery=on_delivery,
        )

    def _measure(self) -> None:
        """What is measured when it is asked for."""

        def lag(number: int) -> float:
            pipeline = self.pipelines.get(number)
            end = self.app.consumer.highwater(TP(self.topics.clicks, number)) if pipeline else None
            if pipeline is None or end is None:
                return math.nan
            return max(0.0, end - pipeline.checkpoint.next_offset)

        def delay(number: int) -> float:
            pipeline = self.pipelines.get(number)
            if pipeline is None or not pipeline.checkpoint.watermark:
                return math.nan
            return time.time() - pipeline.checkpoint.watermark / 1000

        for number in range(self.found[self.topics.clicks].partitions):
            self.metrics.lag.labels(str(number)).set_function(functools.partial(lag, number))
            self.metrics.delay.labels(str(number)).set_function(functools.partial(delay, number))
        self.metrics.listings.set_function(lambda: self.catalogue.announced)
        self._show_bundle()

    def _show_bundle(self) -> None:
        self.metrics.bundle.clear()
        self.metrics.bundle.labels(self.catalogue.bundle.name).set(1)


def _lock(state: Path) -> Any:
    """Hold the state folder for this process."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = (state / "lock").open("w")
    except OSError as error:
        raise UserError(f"{state} can't be written: {error.strerror}; give a folder with --state") from None
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
        silent = error.args[0].code() in (
            KafkaError._TIMED_OUT,
            KafkaError._TRANSPORT,
            KafkaError._ALL_BROKERS_DOWN,
        )
        message = f"{'no broker answers in time' if silent else 'Kafka'}: {error.args[0].str()}"
    elif isinstance(error, OffsetOutOfRangeError):
        message = f"clicks that come next are not there any more: {error}"
    elif isinstance(error, Damaged):
        message = f"{error}; delete that folder and start again: it is filled again from the topics"
    elif isinstance(error, UserError):
        message = str(error)
    else:
        log.error("the worker failed", exc_info=error)
        message = f"{type(error).__name__}: {error}"
    print(f"insession: {message}", file=sys.stderr, flush=True)
    os._exit(2 if isinstance(error, UserError) and not isinstance(error, Unreachable) else 1)


def fail_with(task: asyncio.Task[None]) -> None:
    """End the process where a task has failed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        fail(error)


def run(
    *,
    client: Client,
    topics: Topics,
    bundle: Path,
    state: Path,
    application: str,
    afresh: bool = False,
    health: tuple[str, int] | None = None,
) -> None:
    """Run a worker in this process until it is told to end; `health` is where its state is asked for over HTTP."""

    async def main() -> None:
        worker = Worker(
            client=client, topics=topics, bundle=bundle, state=state, application=application, afresh=afresh
        )
        with contextlib.ExitStack() as stack:
            if health is not None:
                port = stack.enter_context(serve(worker.metrics.registry, worker.reasons, *health))
                log.info("health and metrics are on http://%s:%d", health[0], port)
            await worker.run()

    # Of the loops' cost a third; by the policy, since Faust makes one for its consumer's thread.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    try:
        asyncio.run(main())
    except Unreachable as error:
        fail(error)
    # Faust leaves threads behind that would hold the interpreter for seconds; all that counts is committed.
    sys.stdout.flush()
    os._exit(0)
