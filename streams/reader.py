"""Reading what is committed of a partition, from a position to the end as it stands when it is reached."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.topics import Client, unreachable

CHUNK = 5_000
POLL_SECONDS = 0.02
FOLLOW_SECONDS = 0.2
SECONDS = 30.0


class OutOfRange(Exception):
    """A partition does not have the offset to read from."""


class Stopped(Exception):
    """The reading was told to stop."""


class Reader:
    """A consumer without a group: `read_committed`, assigned by hand, one partition at a time."""

    def __init__(self, consumer: Consumer, stopped: Callable[[], bool]) -> None:
        self._consumer = consumer
        self._stopped = stopped

    def read(
        self, topic: str, partition: int, position: int = OFFSET_BEGINNING
    ) -> Generator[tuple[list[Message], int], None, None]:
        """The records from `position` on, in chunks, each with the position behind it.

        The last chunk may be empty: transaction markers fill offsets, so the end is a position and not a record.
        Raises OutOfRange where the partition does not have the position, Stopped where it was told to stop.
        """
        self._consumer.assign([TopicPartition(topic, partition, position)])
        while True:
            self.go_on()
            messages = []
            at_end = False
            for message in self._consumer.consume(CHUNK, timeout=POLL_SECONDS):
                error = message.error()
                if error is None:
                    messages.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    at_end = True
                    position = message.offset() or 0
                elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                    raise OutOfRange
                elif not error.retriable():
                    raise KafkaException(error)
            if messages and not at_end:
                position = (messages[-1].offset() or 0) + 1
            if messages or at_end:
                yield messages, position
            if at_end:
                return

    def go_on(self) -> None:
        """Raise Stopped where it was told to stop."""
        if self._stopped():
            raise Stopped

    def follow(self, topic: str, positions: Sequence[int]) -> Generator[list[Message], None, None]:
        """The records of all partitions from their positions on, as they come and without an end; empty lists while none do.

        Raises OutOfRange where a partition does not have its position.
        """
        self._consumer.assign([TopicPartition(topic, *at) for at in enumerate(positions)])
        while True:
            messages = []
            for message in self._consumer.consume(CHUNK, timeout=FOLLOW_SECONDS):
                error = message.error()
                if error is None:
                    messages.append(message)
                elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                    raise OutOfRange
                elif error.code() != KafkaError._PARTITION_EOF and not error.retriable():
                    raise KafkaException(error)
            yield messages

    def beginning(self, topic: str, partition: int) -> int:
        """The first offset of a partition."""
        low, _ = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=SECONDS)
        return int(low)

    def end(self, topic: str, partition: int) -> int:
        """Where a partition ends; on the embedded broker it may be less."""
        _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=SECONDS)
        return int(high)

    def since(self, topic: str, partition: int, timestamp: int) -> int:
        """The first offset of a partition whose record is not older than `timestamp`, ms; OFFSET_END where none is."""
        [found] = self._consumer.offsets_for_times(
            [TopicPartition(topic, partition, timestamp)], timeout=SECONDS
        )
        return int(found.offset)

    def has(self, topic: str, partition: int, offset: int) -> bool:
        """Whether a partition has the offset, or ends there. Asked by reading: the embedded broker's own word on where a partition ends can be wrong."""
        try:
            return next(self.read(topic, partition, offset), None) is not None
        except OutOfRange:
            return False

    def any(self, topic: str, partition: int) -> bool:
        """Whether a partition holds a record."""
        return any(messages for messages, _ in self.read(topic, partition))


@contextmanager
def reader(client: Client, stopped: Callable[[], bool] = lambda: False) -> Iterator[Reader]:
    """A reader, closed at the end; it stops where `stopped` says so. UserError where no broker answers."""
    consumer = Consumer(
        {
            **client,
            "group.id": "insession-reader",  # asked for by the library; nothing is committed
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 10,
            # Several partitions are read at once, and each reader would hold 64 MB.
            "queued.max.messages.kbytes": 16_384,
            # Else it waits a second each time these are full.
            "fetch.queue.backoff.ms": 5,
            "fetch.message.max.bytes": 4 << 20,
            "log_level": 0,
        }
    )
    try:
        # Partitions are looked up here: left to `assign`, the library waits half a second and more for each.
        consumer.list_topics(timeout=SECONDS)
        yield Reader(consumer, stopped)
    except KafkaException as error:
        if error.args[0].code() in (
            KafkaError._TRANSPORT,
            KafkaError._TIMED_OUT,
            KafkaError._ALL_BROKERS_DOWN,
        ):
            raise unreachable(client, error) from None
        raise
    finally:
        consumer.close()
