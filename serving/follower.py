"""Follows the users' states, their histories and the listings from Kafka into the sidecar's own store.

All partitions are assigned by hand, from positions that stand in the store: what is read and how far is written in
one, so that a sidecar that starts again goes on where it was. Positions mean something on one cluster and topic
only: where their ids differ, where a position is not on its topic any more, or where tombstones may have been
missed, the store begins from nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from models.errors import no_broker
from models.events import Version
from models.listings import Listing, decode_record
from models.states import Checkpoint, decode_checkpoint, history_key, user_key
from models.store import Store, following
from models.topics import CHECKPOINT_KEY, Topics
from serving.cluster import Asking, Away, Client, Found, Silent, look
from serving.metrics import Metrics
from serving.states import States

BATCH = 5_000
LOOK_SECONDS = 5.0
"""Between two looks at the topics' ids and ends."""
AGAIN_SECONDS = 1.0
"""Before a cluster that does not answer is asked again."""

NOT_ASKED = "has not asked the brokers yet"

_STANDING = b"m"
_PLACES = b"o"
log = logging.getLogger("insession.follower")


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the store stands for."""

    cluster: str
    topics: dict[str, str]
    """The topics' ids, by name."""
    seen: int
    """When everything on the topics was last known to be read, ms; 0 before the first time."""
    version: Version = 1


class Place(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a partition of a topic stands in the store."""

    position: int = 0
    keys: int = 0
    """How many keys of it are in the store."""
    checkpoint: Checkpoint | None = None
    """On `user-embeddings`: what of `clicks` is in it."""


@dataclass(slots=True)
class Status:
    """How the following goes. Written by the follower's thread, read by anyone."""

    caught_up: bool = False
    """All that stood on the topics at the start has been read."""
    problem: str = NOT_ASKED
    """Why nothing can be followed now; empty where it can."""
    behind: int | None = None
    seen: int | None = None
    users: int = 0
    places: dict[tuple[str, int], Place] = field(default_factory=dict)


class _FromNothing(Exception):
    """What is in the store can't be continued. The message says why."""


class _Again(Exception):
    """The topics changed while they were followed: look at them anew."""


_standings = msgspec.json.Decoder(Standing)
_places = msgspec.json.Decoder(Place)


def listing_key(listing: bytes) -> bytes:
    """The store's key of a record of `listings`."""
    return b"l" + listing


class Follower:
    """A thread that keeps `store`, and through it `states`, up to the topics. `start` and `stop` it in the event loop."""

    def __init__(
        self,
        client: Client,
        topics: Topics,
        store: Store,
        states: States,
        metrics: Metrics,
        announce: Callable[[str, Listing | None], object] = lambda listing_id, listing: None,
    ) -> None:
        """`announce` is told each listing that is announced, and None for one that is withdrawn, in the follower's thread."""
        self.status = Status()
        # Silent: a broker that is away is told by `status`, not by a library on stderr.
        self._quiet: dict[str, Any] = {**client, "log_level": 0, "error_cb": self._heard}
        self._refusal = ""
        self._topics = topics
        self._keys = {
            topics.user_embeddings: user_key,
            topics.user_histories: history_key,
            topics.listings: listing_key,
        }
        self._store = store
        self._states = states
        self._metrics = metrics
        self._announce = announce
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._loop: AbstractEventLoop
        self._at_end: set[tuple[str, int]] = set()
        standing = store.get(_STANDING)
        try:
            self._standing = _standings.decode(standing) if standing else None
            self.status.places = {
                _place_of(key): _places.decode(value)
                for key, value in store.items(_PLACES, following(_PLACES))
            }
        except msgspec.MsgspecError:  # of another version: begin from nothing
            self._standing, self.status.places = None, {}
        if self._standing is not None:
            self.status.seen = self._standing.seen or None

    def start(self, loop: AbstractEventLoop) -> None:
        """Begin, with what the store has; `states` is only ever changed in `loop`."""
        self._loop = loop
        self._show()
        self._thread.start()

    def stop(self) -> None:
        """End the thread. The store may be closed after it."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        for key, value in self._store.items(listing_key(b""), following(listing_key(b""))):
            self._listing(key[1:], value)
        while not self._stopping.is_set():
            try:
                admin = AdminClient(self._quiet)
                try:
                    found = look(admin, self._topics)
                finally:
                    admin.poll(0)
                self._check(found)
                self._follow(admin, found)
            except Away as error:
                self._trouble(error)
                self._stopping.wait(AGAIN_SECONDS)
            except _Again:
                continue
            except _FromNothing as error:
                log.warning("the states are begun from nothing: %s", error)
                self._clear()
            except Exception:
                # Nobody restarts this thread, and the sidecar should answer from what it has: try again, slowly.
                log.exception("following failed")
                self._trouble(Away("following failed; see the log"))
                self._stopping.wait(AGAIN_SECONDS)

    def _heard(self, error: KafkaError) -> None:
        """Whatever a broker refuses us for, the answer to a question is only that there was none in time."""
        if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL) or "SSL alert" in error.str():
            self._refusal = " ".join(error.str().split())

    def _trouble(self, error: Away) -> None:
        where, why = self._quiet["bootstrap.servers"], self._refusal or str(error)
        silent = isinstance(error, Silent) and not self._refusal
        problem, self._refusal = no_broker(where, why) if silent else f"{where}: {why}", ""
        if self.status.problem in ("", NOT_ASKED):
            log.warning("can't follow the topics: %s", problem)
        self.status.problem = f"can't follow the topics: {problem}"

    def _check(self, found: Found) -> None:
        """Raise _FromNothing unless the store's positions mean something on these topics."""
        standing = self._standing
        if standing is None:
            if next(self._store.items(b"", b"\xff"), None) is not None:
                raise _FromNothing("the store does not say of which topics it is")
            self._standing = Standing(cluster=found.cluster, topics=found.ids, seen=0)
        elif standing.cluster != found.cluster:
            raise _FromNothing(f"they are of the cluster {standing.cluster}, and this is {found.cluster}")
        elif standing.topics != found.ids:
            changed = [name for name in found.ids if standing.topics.get(name) != found.ids[name]]
            raise _FromNothing(f"made again since: {', '.join(changed)}")

    def _clear(self) -> None:
        """Empty the store. Its positions go first: a store without them is cleared again."""
        for prefix in (_STANDING, _PLACES, b"u", b"h", b"l"):
            while keys := [key for key, _ in islice(self._store.items(prefix, following(prefix)), BATCH)]:
                self._store.write(dict.fromkeys(keys))
        self._standing, self.status.places = None, {}
        self.status.caught_up, self.status.seen = False, None
        self._metrics.resets.inc()
        self._show()

    def _show(self) -> None:
        """Let requests see the positions as the store has them."""
        name = self._topics.user_embeddings
        mine = {number: place for (topic, number), place in self.status.places.items() if topic == name}
        self.status.users = sum(place.keys for place in mine.values())
        applied = {number: place.checkpoint for number, place in mine.items() if place.checkpoint}
        self._post(self._states.set, max(mine, default=-1) + 1, applied)

    def _post(self, call: object, *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)  # type: ignore[arg-type]

    def _follow(self, admin: AdminClient, found: Found) -> None:
        """Read until told to stop."""
        places = self.status.places
        for place in found.all():
            places.setdefault(place, Place())
        self._show()
        self._at_end.clear()
        consumer = Consumer(
            {
                **self._quiet,
                "group.id": "insession-sidecar",  # asked for by the library; nothing is committed
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 25,
                "fetch.error.backoff.ms": 50,
            }
        )
        try:
            consumer.assign([TopicPartition(*place, places[place].position) for place in found.all()])
            asking: Asking | None = Asking(admin, found, _now())
            ends: dict[tuple[str, int], int] = {}
            asked, next_look = 0, 0.0
            while not self._stopping.is_set():
                # `consume` waits for a full batch or the whole timeout: poll for the first, then take what is there.
                first = consumer.poll(0.1)
                if first is not None:
                    self._apply([first, *consumer.consume(BATCH, 0)])
                if asking is None and time.monotonic() >= next_look:
                    asking = Asking(admin, found, _now())
                if asking is not None and asking.done():
                    answer = self._looked(asking)
                    ends, asked = (answer, asking.at) if answer else (ends, 0)
                    asking, next_look = None, time.monotonic() + LOOK_SECONDS
                    if not answer:
                        # Another one, as what this one knows of the cluster may be what is wrong.
                        admin = AdminClient(self._quiet)
                if asked:
                    asked = self._compare(ends, asked, found)
        finally:
            consumer.close()

    def _looked(self, asking: Asking) -> dict[tuple[str, int], int]:
        """The topics' ends, as just asked; none where the cluster did not answer."""
        try:
            same, ends = asking.same(), asking.ends()
        except Away as error:
            self._trouble(error)
            return {}
        if not same:
            raise _Again
        if self.status.problem:
            log.info("following the topics at %s", self._quiet["bootstrap.servers"])
        self.status.problem = ""
        return ends

    def _compare(self, ends: dict[tuple[str, int], int], asked: int, found: Found) -> int:
        """Compare the positions with where the topics ended when they were `asked`; 0 once that is passed."""
        status = self.status
        left = {place: max(0, end - status.places[place].position) for place, end in ends.items()}
        status.behind = sum(left.values())
        if not status.caught_up:
            # A transaction that is left open holds the high watermark away; what is committed is read then too.
            status.caught_up = all(not behind or place in self._at_end for place, behind in left.items())
            if status.caught_up:
                log.info("caught up: %d users", status.users)
        if status.behind:
            return asked
        assert self._standing is not None
        if self._standing.seen and asked - self._standing.seen > found.tombstones_ms:
            raise _FromNothing("tombstones may be gone that were written since everything was last read")
        self._standing = msgspec.structs.replace(self._standing, seen=asked)
        status.seen = asked
        self._store.write({_STANDING: msgspec.json.encode(self._standing)})
        return 0

    def _apply(self, messages: list[Message]) -> None:
        """Write what has come, and how far that is, in one; then let requests see it."""
        changes: dict[bytes, bytes | None] = {}
        of_partition: dict[tuple[str, int], list[bytes]] = {}
        positions: dict[tuple[str, int], int] = {}
        checkpoints: dict[tuple[str, int], bytes] = {}
        for message in messages:
            place = (str(message.topic()), int(message.partition() or 0))
            error = message.error()
            if error is not None:
                self._event(error, place, message, positions)
                continue
            positions[place] = int(message.offset() or 0) + 1
            self._at_end.discard(place)
            key, value = message.key(), message.value()
            name = place[0]
            if isinstance(key, str) or key is None or isinstance(value, str):
                self._metrics.unreadable.labels(name).inc()
            elif name == self._topics.user_embeddings and key == CHECKPOINT_KEY:
                if value is not None:
                    checkpoints[place] = value
            else:
                if name == self._topics.listings:
                    self._listing(key, value)
                stored = self._keys[name](key)
                if stored not in changes:
                    of_partition.setdefault(place, []).append(stored)
                changes[stored] = value
        if not positions:
            return
        places = self.status.places
        new: dict[tuple[str, int], Place] = {}
        for place, position in positions.items():
            keys = of_partition.get(place, [])
            before = self._store.get_many(keys)
            grown = sum(changes[key] is not None for key in keys) - sum(old is not None for old in before)
            checkpoint = self._checkpoint(place, checkpoints.get(place)) or places[place].checkpoint
            new[place] = Place(position=position, keys=places[place].keys + grown, checkpoint=checkpoint)
            self._metrics.updates.labels(place[0]).inc(len(keys))
        changes |= {_place_key(place): msgspec.json.encode(stands) for place, stands in new.items()}
        if self._standing is not None and not self._standing.seen:
            changes[_STANDING] = msgspec.json.encode(self._standing)
        self._store.write(changes)
        places |= new
        name = self._topics.user_embeddings
        self.status.users = sum(stands.keys for (topic, _), stands in places.items() if topic == name)
        applied = {
            place[1]: new[place].checkpoint for place in checkpoints if new[place].checkpoint is not None
        }
        if applied:
            self._post(self._states.advance, applied)

    def _listing(self, key: bytes, value: bytes | None) -> None:
        try:
            self._announce(*decode_record(key, value))
        except ValueError as error:
            self._metrics.unreadable.labels(self._topics.listings).inc()
            log.warning("%s: a listing that can't be read, %r: %s", self._topics.listings, key, error)

    def _checkpoint(self, place: tuple[str, int], value: bytes | None) -> Checkpoint | None:
        if value is None:
            return None
        try:
            return decode_checkpoint(value)
        except msgspec.MsgspecError as error:
            self._metrics.unreadable.labels(place[0]).inc()
            log.warning("%s/%d: a checkpoint that can't be read: %s", *place, error)
            return None

    def _event(
        self,
        error: KafkaError,
        place: tuple[str, int],
        message: Message,
        positions: dict[tuple[str, int], int],
    ) -> None:
        """Something else than a record: the end of a partition, or trouble."""
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            # Transaction markers have offsets too: only this says that nothing else is before the end.
            self._at_end.add(place)
            positions[place] = int(message.offset() or 0)
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise _FromNothing(f"{place[0]}/{place[1]} no longer has the offset {self._position(place)}")
        elif error.fatal():
            raise KafkaException(error)
        # Anything else the library tries again by itself, and the next look says what is wrong.

    def _position(self, place: tuple[str, int]) -> int:
        return self.status.places.get(place, Place()).position


def _place_key(place: tuple[str, int]) -> bytes:
    return _PLACES + f"{place[0]}/{place[1]}".encode()


def _place_of(key: bytes) -> tuple[str, int]:
    topic, _, partition = key[1:].decode().rpartition("/")
    return topic, int(partition)


def _now() -> int:
    return time.time_ns() // 1_000_000
