"""The bundle in use and the listings announced since: read from `listings`, and followed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from models.bundle import Bundle
from models.current import Current
from models.errors import UserError
from models.listings import Listing, decode_record
from streams.topics import Client

log = logging.getLogger("insession.catalogue")
CHUNK = 1_000


class Catalogue:
    """Follows the topic `listings`, all `partitions` of it, and gives each listing to the bundle in use; takes new bundles."""

    def __init__(
        self,
        client: Client,
        topic: str,
        partitions: int,
        path: Path,
        on_error: Callable[[BaseException], None],
    ) -> None:
        """`on_error` is called where following fails. Raises UserError where there is no bundle at `path`, or it is broken."""
        self._on_error = on_error
        self._current = Current(path)
        self.bundle: Bundle = self._current.load()
        self._listings: dict[str, Listing] = {}
        self._lock = threading.Lock()
        self._topic, self._partitions, self._client = topic, partitions, client
        self._read = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="catalogue", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait_until_read(self, seconds: float) -> bool:
        """Wait until all that stood on the topic is known; whether that came to pass."""
        return self._read.wait(seconds)

    def stop(self) -> None:
        self._stopping.set()

    @property
    def announced(self) -> int:
        """How many announced listings have a vector from their neighbours."""
        return len(self.bundle.announced)

    def look(self, on_refused: Callable[[], None] = lambda: None) -> bool:
        """Take the bundle that is current now; whether it is another one than before.

        It is loaded and checked beside the one in use. One that is broken, or not all there yet, is refused until its
        files change, and the old one stays.
        """
        try:
            new = self._current.look()
        except UserError as error:
            log.error("the new bundle is refused, %s stays: %s", self.bundle.name, error)
            on_refused()
            return False
        if new is None:
            return False
        with self._lock:
            for listing_id, listing in self._listings.items():
                new.announce(listing_id, listing)
            old, self.bundle = self.bundle, new
        log.info("bundle %s in place of %s", new.name, old.name)
        return True

    def _run(self) -> None:
        try:
            self._follow()
        except Exception as error:
            self._on_error(error)

    def _follow(self) -> None:
        consumer = Consumer(
            {
                **self._client,
                "group.id": "insession-catalogue",  # asked for by the library; nothing is committed
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 100,
                "log_level": 0,
            }
        )
        try:
            consumer.assign(
                [TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in range(self._partitions)]
            )
            unread = set(range(self._partitions))
            while not self._stopping.is_set():
                for message in consumer.consume(CHUNK, 0.1):
                    error = message.error()
                    if error is None:
                        self._announce(message.key(), message.value())
                    elif error.code() == KafkaError._PARTITION_EOF:
                        unread.discard(message.partition() or 0)
                    elif not error.retriable():
                        log.warning("%s can't be followed: %s", self._topic, error.str())
                if not unread:
                    self._read.set()
        finally:
            consumer.close()

    def _announce(self, key: bytes | None, value: bytes | None) -> None:
        try:
            listing_id, listing = decode_record(key, value)
        except ValueError as error:
            log.warning("%s: a listing that can't be read, %r: %s", self._topic, key, error)
            return
        with self._lock:
            if listing is None:
                self._listings.pop(listing_id, None)
            else:
                self._listings[listing_id] = listing
            self.bundle.announce(listing_id, listing)
