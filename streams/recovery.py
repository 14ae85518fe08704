"""Taking over a partition: its states are brought up to the topics, and what can't be continued is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Message, Producer

from models.errors import UserError
from models.sessions import deadline
from models.states import Checkpoint, decode_embedding, history_key, timer_key, user_key
from models.store import Store, destroy
from models.topics import CHECKPOINT_KEY, DAY_MS, Topics
from streams.reader import SECONDS, OutOfRange, Reader, reader
from streams.states import Standing, read_standing, write
from streams.topics import Client, Found

AFRESH = "start it once with --afresh to begin again from the oldest click that is there"


class CantContinue(UserError):
    """The states and the topics do not belong together."""


@dataclass(frozen=True, slots=True)
class Place:
    """A partition of a cluster's topics, and where its states are kept on this disk."""

    client: Client
    topics: Topics
    cluster: str
    found: dict[str, Found]
    partition: int
    folder: Path

    @property
    def ids(self) -> dict[str, str]:
        """The ids of the topics that a checkpoint stands for."""
        return {name: self.found[name].id for name in (self.topics.clicks, *self.topics.outputs)}


def recover(place: Place, producer: Producer, *, now: int, afresh: bool = False) -> tuple[Store, Checkpoint]:
    """The partition's store, caught up, and the checkpoint to go on from.

    `producer` has called `init_transactions`, so whoever held the partition before can't write any more and
    what it left open is settled. `now` is the clock, ms. Raises CantContinue where the states are of other
    topics or clicks are missing between them and the input, unless `afresh`: then old outputs get
    tombstones and the partition begins at its oldest click.
    """
    with reader(place.client) as topics:
        try:
            return _continue(place, topics, now)
        except CantContinue:
            if not afresh:
                raise
        destroy(place.folder)
        checkpoint = _begin_afresh(place, topics, producer)
    return Store(place.folder), checkpoint


def _continue(place: Place, reader: Reader, now: int) -> tuple[Store, Checkpoint]:
    store = Store(place.folder)
    try:
        standing = _standing(place, store)
        caught_up = _catch_up(place, reader, store, standing, now) if standing is not None else None
        if caught_up is None:
            store.close()
            destroy(place.folder)
            store = Store(place.folder)
            caught_up = _catch_up(place, reader, store, Standing(), now)
            assert caught_up is not None
        return store, _checkpoint(place, reader, caught_up)
    except BaseException:
        store.close()
        raise


def _standing(place: Place, store: Store) -> Standing | None:
    """What the store stands for; None where it can't be used, having been written by another version."""
    try:
        standing = read_standing(store)
    except msgspec.MsgspecError:
        return None
    if standing.checkpoint is not None:
        _same(place, standing.checkpoint, f"the states in {place.folder}")
    return standing


def _same(place: Place, checkpoint: Checkpoint, what: str) -> None:
    """Refuse offsets of another cluster or of a topic that was made again."""
    if checkpoint.cluster != place.cluster:
        raise CantContinue(
            f"{what} are of the cluster {checkpoint.cluster}, and this is {place.cluster}; {AFRESH}"
        )
    for name, topic_id in place.ids.items():
        if checkpoint.topics.get(name) != topic_id:
            raise CantContinue(
                f"the topic {name} was made again since {what} were written; {AFRESH}, "
                "or bring the old topics back"
            )


def _checkpoint(place: Place, reader: Reader, standing: Standing) -> Checkpoint:
    """The checkpoint to go on from: refused where the input no longer has what comes next."""
    clicks = place.topics.clicks
    low = reader.beginning(clicks, place.partition)
    checkpoint = standing.checkpoint
    if checkpoint is None:
        for topic in place.topics.outputs:
            if reader.any(topic, place.partition):
                raise CantContinue(
                    f"{topic} holds records of partition {place.partition}, but no checkpoint says up to which "
                    f"click; {AFRESH}"
                )
        return Checkpoint(next_offset=low, watermark=0, cluster=place.cluster, topics=place.ids)
    _same(place, checkpoint, f"the records on {place.topics.user_embeddings}")
    if checkpoint.next_offset < low or not reader.has(clicks, place.partition, checkpoint.next_offset):
        raise CantContinue(
            f"partition {place.partition} of {clicks} begins at offset {low} and does not have offset "
            f"{checkpoint.next_offset}, from which its states go on: clicks are missing; {AFRESH}"
        )
    return checkpoint


def _catch_up(place: Place, reader: Reader, store: Store, standing: Standing, now: int) -> Standing | None:
    """Read what is new on the outputs into the store; None where the store must start from nothing."""
    topics = place.topics
    # Tombstones are gone after a while: a store from before that would keep what they deleted.
    tombstones_ms = int(place.found[topics.user_embeddings].settings.get("delete.retention.ms", "") or DAY_MS)
    if standing.written_at and now - standing.written_at > tombstones_ms:
        return None
    number = place.partition
    try:
        for messages, position in reader.read(
            topics.user_histories, number, standing.histories or OFFSET_BEGINNING
        ):
            changes = {history_key(key): value for key, value in _newest(messages).items()}
            standing = msgspec.structs.replace(standing, histories=position, written_at=now)
            write(store, changes, standing)
        for messages, position in reader.read(
            topics.user_embeddings, number, standing.embeddings or OFFSET_BEGINNING
        ):
            newest = _newest(messages)
            value = newest.pop(CHECKPOINT_KEY, None)
            checkpoint = msgspec.json.decode(value, type=Checkpoint) if value else standing.checkpoint
            standing = msgspec.structs.replace(
                standing, embeddings=position, checkpoint=checkpoint, written_at=now
            )
            write(store, _with_timers(store, newest), standing)
    except OutOfRange:
        return None  # The store is ahead of its topic.
    return standing


def _with_timers(store: Store, values: dict[bytes, bytes | None]) -> dict[bytes, bytes | None]:
    """The store's changes for these records of `user-embeddings`, their timers moved."""
    changes: dict[bytes, bytes | None] = {}
    users = list(values)
    for user, old in zip(users, store.get_many([user_key(user) for user in users]), strict=True):
        if old is not None:
            changes[timer_key(deadline(decode_embedding(old).state), user)] = None
        new = values[user]
        if new is not None:
            changes[timer_key(deadline(decode_embedding(new).state), user)] = b""
        changes[user_key(user)] = new
    return changes


def _newest(messages: list[Message]) -> dict[bytes, bytes | None]:
    """The last value of each key."""
    return {message.key() or b"": message.value() for message in messages}


def _begin_afresh(place: Place, reader: Reader, producer: Producer) -> Checkpoint:
    """Tombstones for everything on the compacted outputs, and a checkpoint at the oldest click."""
    low = reader.beginning(place.topics.clicks, place.partition)
    checkpoint = Checkpoint(next_offset=low, watermark=0, cluster=place.cluster, topics=place.ids)
    producer.begin_transaction()
    for topic in (place.topics.user_embeddings, place.topics.user_histories):
        keys: set[bytes] = set()
        for messages, _ in reader.read(topic, place.partition):
            for key, value in _newest(messages).items():
                (keys.discard if value is None else keys.add)(key)
        for key in sorted(keys - {CHECKPOINT_KEY}):
            while True:
                try:
                    producer.produce(topic, key=key, value=None, partition=place.partition)
                    break
                except BufferError:
                    producer.poll(1)
    producer.produce(
        place.topics.user_embeddings,
        key=CHECKPOINT_KEY,
        value=msgspec.json.encode(checkpoint),
        partition=place.partition,
    )
    producer.commit_transaction(SECONDS)
    return checkpoint
