"""Follows the users' states, their histories and the listings from Kafka into the sidecar's own store.

Partitions are assigned by hand, from positions that stand in the store: what is read and how far is written in
one, so that a sidecar that starts again goes on where it was. Positions mean something on one cluster and topic
only: where their ids differ, where a position is not on its topic any more, or where tombstones may have been
missed, the store begins from nothing. Then it is filled without looking at what is in it, and stands for nothing
until it is full.

Users have a vector of each bundle that answers: the one in use, those of variants, and the next one before it is
switched to. Records get theirs as they are read; what stood in the store before, between two polls, a slice at a time.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from models.bundle import Bundle
from models.errors import no_broker
from models.listings import decode_record
from models.states import Checkpoint, decode_checkpoint, history_key, user_key
from models.store import Store, following
from models.topics import CHECKPOINT_KEY, OLDEST, Topics
from serving import closed, users, vectors
from serving.cluster import SECONDS, Asking, Away, Client, Found, Silent, look
from serving.metrics import Metrics
from serving.states import States, Unreadable

BATCH = 5_000
LOOK_SECONDS = 5.0
"""Between two looks at the topics' ids and ends."""
AGAIN_SECONDS = 1.0
"""Before a cluster that does not answer is asked again."""
POLL_SECONDS = 0.1
SLICE_SECONDS = 0.002
"""Of work between two polls, and the most the next poll waits while there is some: half of the time is the requests'."""
SLICE = 50
"""Users or listings that are looked at at once."""
LEAVING_SECONDS = 15.0
"""How long the vectors of the bundle before are kept: longer than a request may wait."""

NOT_ASKED = "has not asked the brokers yet"

_STANDING = b"m"
_PLACES = b"o"
log = logging.getLogger("insession.follower")


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the store stands for."""

    cluster: str
    topics: dict[str, str]
    """The topics' ids, by name."""
    seen: int = 0
    """When everything on the topics was last known to be read, ms; 0 before the first time."""
    partitions: int
    """How many `user-embeddings` has,"""
    held: list[int] | None
    """and which of them are in the store; None: all."""
    users: int = 0
    vectors: frozenset[str] = frozenset()
    """The bundles in whose spaces every user is known to have a vector."""
    version: Literal[3] = 3


class Place(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a partition of a topic stands in the store."""

    position: int = 0
    checkpoint: Checkpoint | None = None
    """On `user-embeddings`: what of `clicks` is in it."""


@dataclass(slots=True)
class Status:
    """How the following goes. Written by the follower's thread, read by anyone."""

    caught_up: bool = False
    """All that stood on the topics at the start has been read."""
    problem: str = NOT_ASKED
    """Why nothing can be followed now; empty where it can."""
    refused: str = ""
    """Why the bundle that is current is not the one in use; empty where it is."""
    behind: int | None = None
    seen: int | None = None
    users: int = 0
    places: dict[tuple[str, int], Place] = field(default_factory=dict)


class _FromNothing(Exception):
    """What is in the store can't be continued. The message says why."""


class _Again(Exception):
    """The topics changed while they were followed: look at them anew."""


Values = dict[bytes, bytes | None]
_Offer = tuple[Bundle, Callable[[Bundle], object]]

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
        bundle: Bundle,
        bundles: Sequence[Bundle] = (),
        shadow: Bundle | None = None,
    ) -> None:
        """`bundle` is in use, until `take` gives another one; `bundles`, of variants, stay.

        Listings are announced to all of them in the follower's thread, and to the shadow's, which needs no vectors.
        """
        self.status = Status()
        self.bundle = bundle
        self._beside = tuple(bundles)
        self._shadow = shadow
        self._next: Bundle | None = None
        """Is being brought up beside the one in use."""
        self._offered: _Offer | None = None
        self._taken: _Offer | None = None
        """The one that `_next` is of."""
        self._work: Iterator[None] | None = None
        self._leaving: float | None = 0.0
        """From when on nobody needs the vectors of other bundles; at the start there may be those of an earlier one."""
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
        self._at_end: set[tuple[str, int]] = set()
        self._remembered = ""
        """The bundle with whose vectors all users were brought to mind, as far as there is room,"""
        self._changed: set[bytes] | None = None
        """and, while that goes on, the users whose records have changed since."""
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
            self.status.users = self._standing.users

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
        self._offered = bundle, switch

    def _run(self) -> None:
        announced = False
        while not self._stopping.is_set():
            try:
                if not announced:
                    for key, value in self._listings():
                        self._listing(key, value)
                    announced = True
                self._attempt()
            except Away as error:
                self._trouble(error)
                self._wait()
            except _Again:
                continue
            except Exception:
                # Nobody restarts this thread, and the sidecar should answer from what it has: try again, slowly.
                log.exception("following failed")
                self._trouble(Away("following failed; see the log"))
                self._wait()

    def _attempt(self) -> None:
        """Look at the topics and follow them until told to stop, or until the store is to begin from nothing."""
        admin = AdminClient(self._quiet)
        try:
            found = look(admin, self._topics, self._states.held)
        finally:
            admin.poll(0)
        try:
            self._check(found)
            self._follow(admin, found)
        except _FromNothing as error:
            log.warning("the states are begun from nothing: %s", error)
            self._clear()

    def _wait(self) -> None:
        """Let some time pass before the next attempt; there may be work meanwhile."""
        until = time.monotonic() + AGAIN_SECONDS
        while (left := until - time.monotonic()) > 0 and not self._stopping.is_set():
            try:
                pause = SLICE_SECONDS if self._some_work() else POLL_SECONDS
            except Exception:
                log.exception("the work besides following failed")
                pause = left
            self._stopping.wait(min(left, pause))

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
        self._store.write({_STANDING: None})
        for key, _ in self._listings():
            self._listing(key, None)
        self._store.drop(b"", b"\xff")
        self._standing, self.status.places = None, {}
        self.status.caught_up, self.status.seen, self.status.users = False, None, 0
        self._work = None
        if self._offered is None:
            self._offered = self._taken  # from its beginning
        self._metrics.resets.inc()
        self._remembered, self._changed = "", None
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
            ends: dict[tuple[str, int], int] = {}
            asked, next_look = 0, 0.0
            while not self._stopping.is_set():
                # `consume` waits for a full batch or the whole timeout: poll for the first, then take what is there.
                first = consumer.poll(SLICE_SECONDS if self._some_work() else POLL_SECONDS)
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
        kept = {bundle.name for bundle in self._bundles()} & {*self._standing.vectors, brought}
        self._standing = msgspec.structs.replace(
            self._standing, users=self.status.users, vectors=frozenset(kept), **changed
        )
        return {_STANDING: msgspec.json.encode(self._standing)}

    def _filled(self) -> None:
        """The store is full: let it stand for something."""
        self._store.flush()
        self.status.users = self._store.count(user_key(b""), following(user_key(b"")))
        places = {_place_key(place): msgspec.json.encode(at) for place, at in self.status.places.items()}
        self._store.write(places | self._stands())
        self._filling = False

    def _apply(self, messages: list[Message]) -> None:
        """Write what has come, and how far that is, in one; then let requests see it."""
        values: dict[str, Values] = {
            self._topics.user_embeddings: {},
            self._topics.user_histories: {},
            self._topics.listings: {},
        }
        earlier: dict[bytes, list[bytes | None]] = {}
        positions: dict[tuple[str, int], int] = {}
        checkpoints: dict[tuple[str, int], bytes] = {}
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
            changes |= {_place_key(place): msgspec.json.encode(places[place]) for place in positions}
            changes |= self._stands()
        self._store.write(changes, logged=not self._filling)
        applied = {place[1]: at for place in checkpoints if (at := places[place].checkpoint) is not None}
        changed = {**values[embeddings], **values[self._topics.user_histories]}
        if self._changed is not None:
            self._changed |= changed.keys()
        if applied or changed:
            self._post(self._states.advance, applied, changed)
        now = time.time() * 1000
        for timestamp in oldest:
            if isinstance(timestamp, bytes) and timestamp.isdigit():
                self._metrics.freshness.observe(max(0.0, now - int(timestamp)) / 1000)

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
                self._bundles(),
                follows=self.status.caught_up,
                unreadable=self._unreadable,
            )
            self.status.users += more
        for key, value in values[self._topics.listings].items():
            self._listing(key, value)
            changes[listing_key(key)] = value
        for name, records in values.items():
            self._metrics.updates.labels(name).inc(len(records))
        return changes

    def _remember(self, bundle: Bundle) -> Iterator[None]:
        """Have all users in memory before they are asked for, as far as there is room."""
        self._remembered = bundle.name
        since = self._changed = set()
        states, get = self._states, self._store.get
        histories = self._store.items(history_key(b""), following(history_key(b"")))
        named, history = next(histories, (b"", None))
        for key, value in self._store.items(user_key(b""), following(user_key(b""))):
            user = key[1:]
            while history is not None and named < history_key(user):
                named, history = next(histories, (b"", None))
            if states.memory.full:
                break
            if user not in since:  # of others the iterators have what is not so any more
                own = history if named == history_key(user) else None
                with contextlib.suppress(Unreadable):
                    states.remember(user, bundle.name, value, own, get(closed.closed_key(user)))
            yield
        self._changed = None
        log.info("in memory: %d users, %d MB", len(states.memory), states.memory.size >> 20)

    def _some_work(self) -> bool:
        """Do a slice of the work there is besides reading; whether there is more."""
        if self._offered is not None:
            self._taken, self._offered = self._offered, None
            self._next, switch = self._taken
            self._work = self._bring_up(self._next, switch)
        elif self._leaving is not None and not self._filling and time.monotonic() > self._leaving:
            self._leave()
        elif self._work is None:
            lacking = next(filter(self._lacks, self._bundles()), None)
            if lacking is not None:
                self._work = self._vectors(lacking)
            elif self.status.caught_up and self._remembered != self.bundle.name:
                self._work = self._remember(self.bundle)
        if self._work is None:
            return False
        until = time.monotonic() + SLICE_SECONDS
        while time.monotonic() < until:
            try:
                next(self._work)
            except StopIteration:
                self._work = None
                return False
            except Exception:
                self._work = None
                if self._next is None:
                    raise
                self._refuse(self._next)
                return False
        return True

    def _refuse(self, new: Bundle) -> None:
        """Go on without the bundle that can't be brought up. Called where that is handled."""
        log.exception("the bundle %s can't be brought up, the old one stays", new.name)
        self._metrics.refused.inc()
        self.status.refused = f"the bundle {new.name} can't be brought up; see the log"
        self._next = self._taken = None

    def _listing(self, key: bytes, value: bytes | None) -> None:
        try:
            listing_id, listing = decode_record(key, value)
            for bundle in self._bundles():
                bundle.announce(listing_id, listing)
            if self._shadow is not None:
                self._shadow.announce(listing_id, listing)
        except Exception as error:  # whatever it is: one record is not to stop the following
            self._metrics.unreadable.labels(self._topics.listings).inc()
            log.warning("%s: a listing that can't be read, %r: %s", self._topics.listings, key, error)

    def _listings(self) -> Iterator[tuple[bytes, bytes]]:
        """The keys and records of the listings in the store."""
        for key, value in self._store.items(listing_key(b""), following(listing_key(b""))):
            yield key[1:], value

    def _bundles(self) -> list[Bundle]:
        """Those that answer users, or are about to; a name may stand there twice."""
        return [self.bundle, *self._beside, *([self._next] if self._next is not None else [])]

    def _bring_up(self, new: Bundle, switch: Callable[[Bundle], object]) -> Iterator[None]:
        """Announce to a new bundle what was announced before, give users vectors of it, and have it switched to."""
        for some in self._slices(listing_key(b"")):
            for key, value in some:
                with contextlib.suppress(Exception):  # it was told of when it came
                    new.announce(*decode_record(key[1:], value))
            yield
        if self._lacks(new):
            yield from self._vectors(new)
        self.bundle, self._next, self._taken = new, None, None
        self._leaving = time.monotonic() + LEAVING_SECONDS
        self._post(switch, new)

    def _vectors(self, bundle: Bundle) -> Iterator[None]:
        """Give every user whose record's vector is of another bundle one of this bundle."""
        space, done = vectors.space(bundle.name), 0
        for some in self._slices(user_key(b"")):
            made = {space + key[1:]: vectors.read(bundle, value, self._unreadable) for key, value in some}
            changes = {key: vector for key, vector in made.items() if vector is not None}
            self._store.write(changes)
            done += len(changes)
            yield
        log.info("%d users' vectors computed for the bundle %s", done, bundle.name)
        self._metrics.recomputed.inc(done)
        self._store.write(self._stands(brought=bundle.name))

    def _slices(self, prefix: bytes) -> Iterator[list[tuple[bytes, bytes]]]:
        """All keys that begin with `prefix` and their values, some at a time, each as it stands then."""
        after = prefix
        while some := list(islice(self._store.items(after, following(prefix)), SLICE)):
            yield some
            after = some[-1][0] + b"\0"

    def _lacks(self, bundle: Bundle) -> bool:
        """Whether users may lack vectors of the bundle; not asked of a store that is being filled."""
        standing = self._standing
        return standing is not None and not self._filling and bundle.name not in standing.vectors

    def _leave(self) -> None:
        """Drop the vectors of bundles that do not answer any more."""
        self._leaving = None
        if self._standing is not None:
            self._store.write(self._stands())
        kept = sorted({vectors.space(bundle.name) for bundle in self._bundles()})
        begin = vectors.PREFIX
        for space in kept:
            self._store.drop(begin, space)
            begin = following(space)
        self._store.drop(begin, following(vectors.PREFIX))

    def _unreadable(self) -> None:
        self._metrics.unreadable.labels(self._topics.user_embeddings).inc()

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
