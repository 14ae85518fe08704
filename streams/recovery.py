"""Taking over a partition: its states are brought up to the topics, and what can't be continued is refused."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Message, Producer

from models.errors import UserError
from models.states import Checkpoint, decode_checkpoint, decode_embedding, history_key, timers, user_key
from models.store import Damaged, Store, destroy, opened
from models.topics import CHECKPOINT_KEY, DAY_MS, Topics
from streams.producing import send
from streams.reader import SECONDS, OutOfRange, Reader, reader
from streams.states import Standing, read_standing, users, write
from streams.topics import Client, Found

TIMERS = 2_000
"""Users whose timers are made in one write."""
AFRESH = "start it once with --afresh to begin again from the oldest click that is there"

log = logging.getLogger("insession.recovery")


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


def recover(
    place: Place,
    producer: Producer,
    *,
    afresh: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.time,
) -> tuple[Store, Standing]:
    """The partition's store, caught up, and what it stands for, with the checkpoint to go on from.

    `producer` has called `init_transactions`, so whoever held the partition before can't write any more and
    what it left open is settled. Raises CantContinue where the states are of other topics or clicks are missing
    between them and the input, unless `afresh`: then old outputs get tombstones and the partition begins at its
    oldest click. Raises streams.reader.Stopped once `stopped` says so.
    """
    with reader(place.client, stopped) as topics:
        try:
            return _continue(place, topics, clock)
        except CantContinue:
            if not afresh:
                raise
        except msgspec.MsgspecError as error:
            raise UserError(
                f"partition {place.partition} holds records that this version can't read: {error}; were they "
                "written by a newer one?"
            ) from None
        destroy(place.folder)
        checkpoint = _begin_afresh(place, topics, producer)
    return Store(place.folder), Standing(checkpoint=checkpoint, written_at=_now(clock))


def _now(clock: Callable[[], float]) -> int:
    return int(clock() * 1000)


def _continue(place: Place, reader: Reader, clock: Callable[[], float]) -> tuple[Store, Standing]:
    store = opened(place.folder)
    try:
        try:
            standing = _standing(place, store)
            caught_up = _catch_up(place, reader, store, standing, clock) if standing is not None else None
        except Damaged as error:
            log.warning("%s; it is filled again from the topics", error)
            caught_up = None
        if caught_up is None:
            store.begin_anew()
            caught_up = _from_nothing(place, reader, store, clock)
        return store, msgspec.structs.replace(caught_up, checkpoint=_checkpoint(place, reader, caught_up))
    except BaseException:
        store.close()
        raise


def _standing(place: Place, store: Store) -> Standing | None:
    """What the store stands for; None where it can't be used: it is new, was never filled, or is of another version."""
    try:
        standing = read_standing(store)
    except msgspec.MsgspecError:
        return None
    if standing.checkpoint is not None:
        _same(place, standing.checkpoint, f"the states in {place.folder}")
    return standing if standing.written_at else None


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


def _tombstones_ms(place: Place) -> int:
    """How long the compacted outputs keep tombstones."""
    names = (place.topics.user_embeddings, place.topics.user_histories)
    return min(int(place.found[name].settings.get("delete.retention.ms", "") or DAY_MS) for name in names)


def _catch_up(
    place: Place, reader: Reader, store: Store, standing: Standing, clock: Callable[[], float]
) -> Standing | None:
    """Read what is new on the outputs into the store; None where the store must start from nothing."""
    topics, number, tombstones_ms = place.topics, place.partition, _tombstones_ms(place)

    def too_old() -> bool:
        # Tombstones are gone after a while: a store from before that would keep what they deleted.
        return _now(clock) - standing.written_at > tombstones_ms

    if too_old():
        return None
    try:
        for messages, position in reader.read(
            topics.user_histories, number, standing.histories or OFFSET_BEGINNING
        ):
            standing = msgspec.structs.replace(standing, histories=position)
            write(store, _histories(messages), standing)
        for messages, position in reader.read(
            topics.user_embeddings, number, standing.embeddings or OFFSET_BEGINNING
        ):
            newest = _newest(messages)
            checkpoint = _last_checkpoint(newest) or standing.checkpoint
            changes, bundles = _with_timers(store, newest)
            standing = msgspec.structs.replace(
                standing,
                embeddings=position,
                checkpoint=checkpoint,
                bundle=standing.bundle if bundles <= {standing.bundle} else "",
            )
            write(store, changes, standing)
    except OutOfRange:
        return None  # The store is ahead of its topic.
    if too_old():
        return None
    standing = msgspec.structs.replace(standing, written_at=_now(clock))
    write(store, {}, standing)
    return standing


def _from_nothing(place: Place, reader: Reader, store: Store, clock: Callable[[], float]) -> Standing:
    """Read the outputs whole into a new store. It stands for nothing until all is in it, so little need be done twice."""
    topics, number, begun = place.topics, place.partition, _now(clock)
    standing = Standing()
    for messages, position in reader.read(topics.user_histories, number):
        store.write(_histories(messages), logged=False)
        standing = msgspec.structs.replace(standing, histories=position)
    for messages, position in reader.read(topics.user_embeddings, number):
        newest = _newest(messages)
        checkpoint = _last_checkpoint(newest) or standing.checkpoint
        store.write({user_key(user): value for user, value in newest.items()}, logged=False)
        standing = msgspec.structs.replace(standing, embeddings=position, checkpoint=checkpoint)
    bundles: set[str] = set()
    after = b""
    while some := users(store, after, TIMERS):
        reader.go_on()
        changes, those = _timers(some, store.get_many([user_key(user) for user in some]))
        store.write(changes, logged=False)
        bundles |= those
        after = some[-1]
    tombstones_ms = _tombstones_ms(place)
    if _now(clock) - begun > tombstones_ms:
        raise UserError(
            f"partition {number} took longer to read than its topics keep tombstones "
            f"(delete.retention.ms={tombstones_ms}); set it higher"
        )
    store.flush()
    standing = msgspec.structs.replace(
        standing, written_at=_now(clock), bundle=next(iter(bundles)) if len(bundles) == 1 else ""
    )
    write(store, {}, standing)
    return standing


def _timers(users: list[bytes], values: list[bytes | None]) -> tuple[dict[bytes, bytes | None], set[str]]:
    """The timers of these users' records of `user-embeddings`, and of which bundles their vectors are."""
    changes: dict[bytes, bytes | None] = {}
    bundles = set()
    for user, value in zip(users, values, strict=True):
        if value is not None:
            record = decode_embedding(value)
            changes |= timers(user, None, record.state)
            if record.state.sessions:
                bundles.add(record.bundle)
    return changes, bundles


def _with_timers(
    store: Store, values: dict[bytes, bytes | None]
) -> tuple[dict[bytes, bytes | None], set[str]]:
    """The store's changes for these records of `user-embeddings`, their timers moved; of which bundles their vectors are."""
    users = list(values)
    old, _ = _timers(users, store.get_many([user_key(user) for user in users]))
    new, bundles = _timers(users, list(values.values()))
    return {**dict.fromkeys(old), **new, **{user_key(user): value for user, value in values.items()}}, bundles


def _newest(messages: list[Message]) -> dict[bytes, bytes | None]:
    """The last value of each key."""
    return {message.key() or b"": message.value() for message in messages}


def _histories(messages: list[Message]) -> dict[bytes, bytes | None]:
    return {history_key(key): value for key, value in _newest(messages).items()}


def _last_checkpoint(newest: dict[bytes, bytes | None]) -> Checkpoint | None:
    """The last checkpoint, taken out of the last values of each key."""
    value = newest.pop(CHECKPOINT_KEY, None)
    return decode_checkpoint(value) if value else None


def _begin_afresh(place: Place, reader: Reader, producer: Producer) -> Checkpoint:
    """Tombstones for everything on the compacted outputs, and a checkpoint at the oldest click."""
    low = reader.beginning(place.topics.clicks, place.partition)
    checkpoint = Checkpoint(next_offset=low, watermark=0, cluster=place.cluster, topics=place.ids)
    live: list[tuple[str, bytes]] = []
    for topic in (place.topics.user_embeddings, place.topics.user_histories):
        keys: set[bytes] = set()
        for messages, _ in reader.read(topic, place.partition):
            for key, value in _newest(messages).items():
                (keys.discard if value is None else keys.add)(key)
        live += [(topic, key) for key in sorted(keys - {CHECKPOINT_KEY})]
    # Only now: a transaction that waits for the reading of whole topics would time out.
    producer.begin_transaction()
    for topic, key in live:
        send(producer, topic, key=key, value=None, partition=place.partition)
    producer.produce(
        place.topics.user_embeddings,
        key=CHECKPOINT_KEY,
        value=msgspec.json.encode(checkpoint),
        partition=place.partition,
    )
    producer.commit_transaction(SECONDS)
    return checkpoint
