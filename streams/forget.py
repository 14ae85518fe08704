"""Erasing users: `forget` events on `clicks`, where the worker takes them up in the order of all other events."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from models.errors import UserError
from models.events import EventError, Forget, encode, parse
from models.recording import partition_of
from models.topics import Topics
from streams.producing import send
from streams.topics import Client, describe


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """Where a user's `forget` came to stand on `clicks`."""

    user_id: str
    event_id: str
    partition: int
    offset: int


def forget(
    client: Client,
    topics: Topics,
    users: Iterable[str],
    *,
    now: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[Forgotten]:
    """Put a `forget` for each of the users on `clicks`, dated `now` (ms), where Kafka's Java client puts their events.

    UserError, before anything is written, where one is no user id or there is no topic; and where the broker
    refuses one.
    """
    found = describe(client, (topics.clicks,)).get(topics.clicks)
    if found is None:
        raise UserError(f"there is no topic {topics.clicks}; make it with `insession topics`")
    events = [_event(user, now) for user in dict.fromkeys(users)]
    done: list[Forgotten] = []

    def on_delivery(event: Forget) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                raise UserError(f"the broker refused to take the forget of {event.user_id!r}: {error.str()}")
            place = (int(message.partition() or 0), int(message.offset() or 0))
            done.append(
                Forgotten(user_id=event.user_id, event_id=event.event_id, partition=place[0], offset=place[1])
            )
            on_progress(len(done))

        return delivered

    producer = Producer({**client, "enable.idempotence": True, "log_level": 0})
    for event in events:
        key = event.user_id.encode()
        number = partition_of(key, found.partitions)
        send(
            producer,
            topics.clicks,
            key=key,
            value=encode(event),
            partition=number,
            timestamp=now,
            on_delivery=on_delivery(event),
        )
    producer.flush()
    return done


def _event(user: str, now: int) -> Forget:
    event = Forget(event_id=f"forget-{secrets.token_hex(12)}", user_id=user, timestamp=now)
    try:
        parse(encode(event))
    except (EventError, UnicodeEncodeError) as error:
        raise UserError(f"{user!r} is no user id: {error}; nobody was forgotten") from None
    return event
