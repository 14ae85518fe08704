"""Follows the users' states, their histories and the listings from Kafka into the sidecar's own store.

Partitions are assigned by hand, from positions that stand in the store: what is read and how far is written in
one, so that a sidecar that starts again goes on where it was. Positions mean something on one cluster and topic
only: where their ids differ, where a position is not on its topic any more, or where tombstones may have been
missed, the store begins from nothing. Then it is filled without looking at what is in it, and stands for nothing
until it is full.

The store may be lost: one that is damaged is thrown away once the topics can be read again, and one that can't be
written, as where the disk is full, is answered from, and opened again when there is room.

Records get their vectors of the bundles that answer as they are read (serving.spaces does the rest).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from models.bundle import Bundle
from models.errors import no_broker
from models.states import Checkpoint, decode_checkpoint, history_key, user_key
from models.store import Damaged, Store, StoreError, following
from models.topics import CHECKPOINT_KEY, OLDEST, Topics
from serving import standing, users
from serving.cluster import SECONDS, Asking, Away, Client, Found, Silent, look
from serving.metrics import Metrics
from serving.remembering import remember
from serving.spaces import SLICE_SECONDS, Spaces, listing_key
from serving.standing import Partition, Place, Standing
from serving.states import States

BATCH = 5_000
LOOK_SECONDS = 5.0
"""Between two looks at the topics' ids and ends."""
AGAIN_SECONDS = 1.0
"""Before a cluster that does not answer is asked again."""
POLL_SECONDS = 0.1

NOT_ASKED = "has not asked the brokers yet"

log = logging.getLogger("insession.follower")


@dataclass(slots=True)
class Status:
    """How the following goes. Written by the follower's thread, read by anyone."""

    caught_up: bool = False
    """All that stood on the topics at the start has been read."""
    warm: bool = False
    """The brokers do not answer, and what is in the store was once all there was: it is answered from."""
    problem: str = NOT_ASKED
    """Why nothing can be followed now; empty where it can."""
    store: str = ""
    """What is wrong with the store; empty where nothing is."""
    refused: str = ""
    """Why the bundle that is current is not the one in use; empty where it is."""
    behind: int | None = None
    seen: int | None = None
    users: int = 0
    places: dict[Partition, Place] = field(default_factory=dict)


class _FromNothing(Exception):
    """What is in the store can't be continued. The message says why."""


class _Again(Exception):
    """The topics changed while they were followed: look at them anew."""


Values = dict[bytes, bytes | None]


class Follower:
    """A thread that keeps `store`, and through it `states`, up to the topics. `start` and `stop` it in the event loop."""

    def __init__(
        self,
        client: Client,
        topics: Topics,
        store: Store,
        states: States,
        metrics: Metrics,
        bundle: Bundle,
        bundles: Sequence[Bundle] = (),
        shadow: Bundle | None = None,
    ) -> None:
        """`bundle` is in use, until `take` gives another one; `bundles`, of variants, stay.

        Listings are announced to all of them in the follower's thread, and to the shadow's, which needs no vectors.
        """
        self.status = Status()
        # Silent: a broker that is away is told by `status`, not by a library on stderr.
        self._quiet: dict[str, Any] = {**client, "log_level": 0, "error_cb": self._heard}
        self._refusal = ""
        self._topics = topics
        self._store = store
        self._states = states
        self._metrics = metrics
        self._filling = False
        """The store is being filled from nothing."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._loop: AbstractEventLoop
        self._at_end: set[Partition] = set()
        self._standing: Standing | None = None
        self.spaces = Spaces(
            store,
            metrics,
            topics,
            (bundle, *bundles),
            shadow,
            full=lambda: self._standing if not self._filling else None,
            stands=self._stands,
            post=self._post,
            refused=self._refused,
            idle=self._idle,
        )
        self._remembered = ""
        """The bundle with whose vectors users were brought to mind."""
        with contextlib.suppress(StoreError):  # it is found again, and said, once the thread runs
            self._load()

    def start(self, loop: AbstractEventLoop) -> None:
        """Begin, with what the store has; `states` is only ever changed in `loop`."""
        self._loop = loop
        self._show()
        self._thread.start()

    def stop(self) -> None:
        """End the thread. The store may be closed after it."""
        self._stopping.set()
        self._thread.join()

    def take(self, bundle: Bundle, switch: Callable[[Bundle], object]) -> None:
        """Bring up another bundle beside the one in use, then call `switch` with it in the loop. For any thread; a later one is taken in its place."""
        self.spaces.take(bundle, switch)

    def _run(self) -> None:
        announced = False
        while not self._stopping.is_set():
            try:
                self._reopen()
                if not announced and not self._store.damage:
                    for key, value in self.spaces.listings():
                        self.spaces.announce(key, value)
                    announced = True
                self._attempt()
                continue
            except _Again:
                continue
            except Away as error:
                self._trouble(error)
            except StoreError as error:
                self._spoilt(error)
            except Exception as error:
                # Nobody restarts this thread, and the sidecar should answer from what it has: try again, slowly.
                log.exception("following failed")
                self._trouble(Away(f"{type(error).__name__}: {error}; see the log"))
            self._wait()

    def _attempt(self) -> None:
        """Look at the topics and follow them until told to stop, or until the store is to begin from nothing."""
        admin = AdminClient(self._quiet)
        try:
            found = look(admin, self._topics, self._states.held)
        finally:
            admin.poll(0)
        reason = ""
        try:
            self._check(found)
            self._follow(admin, found)
        except _FromNothing as error:
            reason = str(error)
        if reason:  # only here: an error holds on to what the store must not have open
            log.warning("the states are begun from nothing: %s", reason)
            self._clear()

    def _wait(self) -> None:
        """Let some time pass before the next attempt; there may be work meanwhile."""
        until = time.monotonic() + AGAIN_SECONDS
        while (left := until - time.monotonic()) > 0 and not self._stopping.is_set():
            pause = left
            if not self.status.store:
                try:
                    pause = SLICE_SECONDS if self.spaces.work() else POLL_SECONDS
                except StoreError as error:
                    self._spoilt(error)
                except Exception:
                    log.exception("the work besides following failed")
            self._stopping.wait(min(left, pause))

    def _spoilt(self, error: StoreError) -> None:
        """Say what is wrong with the store; the next attempt is to mend it."""
        if not self.status.store and not isinstance(
            error, Damaged
        ):  # of which it is said when it is thrown away
            log.warning("%s; answering from what there is", error)
        self.status.store = str(error)

    def _reopen(self) -> None:
        """Open the store again where it could not be written. Raises StoreError while it can't be.

        One that is damaged stays as it is until the brokers answer: there is nothing to be had in its place before.
        """
        if self._store.damage:
            self.status.store = self._store.damage
            return
        if not self.status.store:
            return
        self._store.reopen()
        self._load()
        self._show()
        log.info("the store %s can be written again", self._store.path)

    def _load(self) -> None:
        """Go on from what the store stands for: what was read since, and not written, is read again."""
        status = self.status
        self._standing, status.places = standing.read(self._store)
        status.seen = (self._standing.seen or None) if self._standing is not None else None
        status.users = self._standing.users if self._standing is not None else 0
        if status.seen is None:
            status.caught_up = status.warm = False
        status.store = ""
        self.spaces.begin_again()

    def _refused(self, why: str) -> None:
        self.status.refused = why

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
        stands = self._standing
        if silent and stands is not None and stands.seen and stands.held == self._held():
            self.status.warm = True

    def _check(self, found: Found) -> None:
        """Raise _FromNothing unless the store's positions mean something on these topics."""
        if self._store.damage:
            raise _FromNothing(self._store.damage)
        standing = self._standing
        if standing is None:
            if next(self._store.items(b"", b"\xff"), None) is not None:
                raise _FromNothing("the store does not say of which topics it is")
            self._standing = Standing(
                cluster=found.cluster,
                topics=found.ids,
                partitions=found.partitions[self._topics.user_embeddings],
                held=self._held(),
            )
        elif standing.cluster != found.cluster:
            raise _FromNothing(f"they are of the cluster {standing.cluster}, and this is {found.cluster}")
        elif standing.topics != found.ids:
            changed = [name for name in found.ids if standing.topics.get(name) != found.ids[name]]
            raise _FromNothing(f"made again since: {', '.join(changed)}")
        elif standing.held != self._held():
            raise _FromNothing("they are of other partitions than are held now")
        seen = standing.seen if standing is not None else 0
        self._filling = not seen and not self.status.caught_up

    def _held(self) -> list[int] | None:
        return sorted(self._states.held) if self._states.held is not None else None

    def _clear(self) -> None:
        """Empty the store. Its positions go first: a store without them is cleared again."""
        self.status.caught_up = self.status.warm = False
        if self._store.damage:
            self._store.begin_anew()
        else:
            self._store.write(standing.stands(None))
            for key, _ in self.spaces.listings():
                self.spaces.announce(key, None)
            self._store.drop(b"", b"\xff")
        self._load()
        self._metrics.resets.inc()
        self._remembered = ""
        self._post(self._states.memory.clear)
        self._show()

    def _show(self) -> None:
        """Let requests see the positions as the store has them."""
        name = self._topics.user_embeddings
        applied = {
            number: place.checkpoint
            for (topic, number), place in self.status.places.items()
            if topic == name and place.checkpoint
        }
        partitions = self._standing.partitions if self._standing is not None else 0
        self._post(self._states.set, partitions, applied)

    def _post(self, call: object, *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)  # type: ignore[arg-type]

    def _follow(self, admin: AdminClient, found: Found) -> None:
        """Read until told to stop."""
        places = self.status.places
        for place in found.places:
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
                # A broker answers as soon as something is committed; this is how often it is asked where nothing is.
                "fetch.wait.max.ms": 100,
                "fetch.error.backoff.ms": 50,
                "reconnect.backoff.max.ms": 1_000,
                "fetch.message.max.bytes": 4 << 20,
                "queued.max.messages.kbytes": 32_768,
                # Else it waits a second each time these are full.
                "fetch.queue.backoff.ms": 5,
            }
        )
        try:
            try:
                # Left to `assign`, the library waits half a second and more before it looks partitions up.
                consumer.list_topics(timeout=SECONDS)
            except KafkaException as error:
                raise Silent(error.args[0].str()) from None
            consumer.assign([TopicPartition(*place, places[place].position) for place in found.places])
            asking: Asking | None = Asking(admin, found, _now())
            ends: dict[Partition, int] = {}
            asked, next_look = 0, 0.0
            while not self._stopping.is_set():
                if self._store.damage:  # a request has come upon it
                    raise Damaged(self._store.damage)
                # `consume` waits for a full batch or the whole timeout: poll for the first, then take what is there.
                first = consumer.poll(SLICE_SECONDS if self.spaces.work() else POLL_SECONDS)
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

    def _looked(self, asking: Asking) -> dict[Partition, int]:
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

    def _compare(self, ends: dict[Partition, int], asked: int, found: Found) -> int:
        """Compare the positions with where the topics ended when they were `asked`; 0 once that is passed."""
        status = self.status
        left = {place: max(0, end - status.places[place].position) for place, end in ends.items()}
        status.behind = sum(left.values())
        # A transaction that is left open holds the high watermark away; what is committed is read then too.
        read = all(not behind or place in self._at_end for place, behind in left.items())
        if read and not status.caught_up:
            if self._filling:
                self._filled()
            status.caught_up = True
            log.info("caught up: %d users", status.users)
        if status.behind:
            return asked
        assert self._standing is not None
        if self._standing.seen and asked - self._standing.seen > found.tombstones_ms:
            raise _FromNothing("tombstones may be gone that were written since everything was last read")
        status.seen = asked
        self._store.write(self._stands(seen=asked))
        return 0

    def _stands(self, brought: str = "", **changed: object) -> dict[bytes, bytes | None]:
        """What to write so that the store stands for this; to `brought`, a bundle, every user's vector is brought now."""
        assert self._standing is not None
        # What is read from here on gets no vectors of other bundles.
        kept = {bundle.name for bundle in self.spaces.bundles} & {*self._standing.vectors, brought}
        self._standing = msgspec.structs.replace(
            self._standing, users=self.status.users, vectors=frozenset(kept), **changed
        )
        return standing.stands(self._standing)

    def _filled(self) -> None:
        """The store is full: let it stand for something."""
        self._store.flush()
        self.status.users = self._store.count(user_key(b""), following(user_key(b"")))
        self._store.write(standing.placed(self.status.places) | self._stands())
        self._filling = False

    def _apply(self, messages: list[Message]) -> None:
        """Write what has come, and how far that is, in one; then let requests see it."""
        values: dict[str, Values] = {
            self._topics.user_embeddings: {},
            self._topics.user_histories: {},
            self._topics.listings: {},
        }
        earlier: dict[bytes, list[bytes | None]] = {}
        positions: dict[Partition, int] = {}
        checkpoints: dict[Partition, bytes] = {}
        oldest: list[object] = []
        embeddings, filling, at_end = self._topics.user_embeddings, self._filling, self._at_end
        for message in messages:
            name, key, value = message.topic() or "", message.key(), message.value()
            place = (name, message.partition() or 0)
            error = message.error()
            if error is not None:
                self._event(error, place, message, positions)
                continue
            positions[place] = (message.offset() or 0) + 1
            if at_end:
                at_end.discard(place)
            if type(key) is not bytes:
                self._metrics.unreadable.labels(name).inc()
                continue
            if name == embeddings:
                if key == CHECKPOINT_KEY:
                    if type(value) is bytes:
                        checkpoints[place] = value
                        if self.status.caught_up:
                            oldest.append(dict(message.headers() or ()).get(OLDEST))
                    continue
                if not filling and key in values[name]:
                    earlier.setdefault(key, []).append(values[name][key])
            values[name][key] = value
        if not positions:
            return
        changes = self._changes(values, earlier)
        places = self.status.places
        for place, position in positions.items():
            checkpoint = self._checkpoint(place, checkpoints.get(place)) or places[place].checkpoint
            places[place] = Place(position=position, checkpoint=checkpoint)
        if not self._filling:
            changes |= standing.placed({place: places[place] for place in positions})
            changes |= self._stands()
        self._store.write(changes, logged=not self._filling)
        applied = {place[1]: at for place in checkpoints if (at := places[place].checkpoint) is not None}
        changed = {**values[embeddings], **values[self._topics.user_histories]}
        if applied or changed:
            self._post(self._states.advance, applied, changed)
        now = time.time() * 1000
        for timestamp in oldest:
            if isinstance(timestamp, bytes) and timestamp.isdigit():
                self._metrics.freshness.observe(max(0.0, now - int(timestamp)) / 1000)

    def _idle(self, bundle: Bundle) -> Iterator[None] | None:
        """What there is to do where there is nothing else: users are brought to mind."""
        if not self.status.caught_up or self._remembered == bundle.name:
            return None
        return self._remember(bundle)

    def _remember(self, bundle: Bundle) -> Iterator[None]:
        if self._remembered:  # with vectors of another bundle, which are in the way now
            self._states.memory.clear()
        yield from remember(self._store, self._states, bundle.name)
        self._remembered = bundle.name

    def _changes(
        self, values: dict[str, Values], earlier: dict[bytes, list[bytes | None]]
    ) -> dict[bytes, bytes | None]:
        """What records change in the store: the last of each key by topic, users' `earlier` ones before; listings are announced."""
        states, histories = values[self._topics.user_embeddings], values[self._topics.user_histories]
        changes: dict[bytes, bytes | None] = {}
        if self._filling:
            changes = {user_key(user): value for user, value in states.items()}
            changes |= {history_key(user): value for user, value in histories.items()}
        else:
            changes, more = users.changed(
                self._store,
                states,
                earlier,
                histories,
                self.spaces.bundles,
                follows=self.status.caught_up,
                unreadable=self.spaces.unreadable,
                unreadable_history=self._metrics.unreadable.labels(self._topics.user_histories).inc,
            )
            self.status.users += more
        for key, value in values[self._topics.listings].items():
            self.spaces.announce(key, value)
            changes[listing_key(key)] = value
        for name, records in values.items():
            self._metrics.updates.labels(name).inc(len(records))
        return changes

    def _checkpoint(self, place: Partition, value: bytes | None) -> Checkpoint | None:
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
        place: Partition,
        message: Message,
        positions: dict[Partition, int],
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

    def _position(self, place: Partition) -> int:
        return self.status.places.get(place, Place()).position


def _now() -> int:
    return time.time_ns() // 1_000_000
