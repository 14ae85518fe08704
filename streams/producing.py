"""Producing a record where the producer's queue may be full."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Producer

FULL_SECONDS = 0.1


def send(producer: Producer, topic: str, **record: Any) -> None:
    """`producer.produce`, which waits while the queue is full, and then hears what has been delivered.

    Raises what that and the callbacks of deliveries raise.
    """
    while True:
        try:
            producer.produce(topic, **record)
            break
        except BufferError:
            producer.poll(FULL_SECONDS)
    producer.poll(0)
