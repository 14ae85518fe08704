"""The follower on real brokers: what is on the topics comes into the store, once, and from where it was."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from models.bundle import Bundle
from models.encoder import Encoder
from models.history import History, append
from models.sessions import WINDOWS, Session, State, UserEmbedding
from models.states import Checkpoint, history_key, user_key
from models.store import Store
from models.topics import CHECKPOINT_KEY, OLDEST, Topics
from serving import cluster, follower
from serving.follower import Follower
from serving.metrics import Metrics
from serving.partitions import elsewhere
from serving.spaces import Spaces, listing_key
from serving.states import States, Unreadable
from streams import broker, topics
from streams.broker import Broker
from tests.conftest import kafka_home
from tests.fleet import Kafka
from tests.made import a_bundle, act, user_in, visit
from tests.path import NEW, placed

PARTITIONS = 2
SECONDS = 20.0
USER = user_in(a_bundle(), act(0, "l1"))


@dataclass
class Worker:
    """Writes the outputs as a worker does: in transactions, each with its checkpoint at the end."""

    client: dict[str, str | int | float | bool]
    names: Topics

    def __post_init__(self) -> None:
        self.producer = Producer({**self.client, "transactional.id": secrets.token_hex(4), "log_level": 0})
        self.producer.init_transactions(SECONDS)

    def begin(
        self,
        partition: int,
        next_offset: int,
        users: dict[str, UserEmbedding | None],
        oldest: int | None = None,
    ) -> None:
        produce = self.producer.produce
        self.producer.begin_transaction()
        for name, user in users.items():
            value = None if user is None else msgspec.json.encode(user)
            produce(self.names.user_embeddings, value, name.encode(), partition=partition)
        checkpoint = Checkpoint(next_offset=next_offset, watermark=7, cluster="c", topics={})
        produce(
            self.names.user_embeddings,
            msgspec.json.encode(checkpoint),
            CHECKPOINT_KEY,
            partition=partition,
            headers=[(OLDEST, str(oldest).encode())] if oldest is not None else None,
        )
        self.producer.flush(SECONDS)

    def commit(self, partition: int, next_offset: int, *users: str, oldest: int | None = None) -> None:
        self.begin(partition, next_offset, {name: user(name) for name in users}, oldest)
        self.producer.commit_transaction(SECONDS)

    def drop(self, partition: int, next_offset: int, *users: str) -> None:
        self.begin(partition, next_offset, dict.fromkeys(users))
        self.producer.commit_transaction(SECONDS)

    def put(self, topic: str, key: str, value: bytes) -> None:
        self.producer.begin_transaction()
        self.producer.produce(topic, value, key.encode(), partition=0)
        self.producer.commit_transaction(SECONDS)


def user(name: str) -> UserEmbedding:
    return msgspec.structs.replace(USER, user_id=name)


@pytest.fixture
def worker(any_broker: Broker) -> Worker:
    return a_worker(any_broker)


def a_worker(running: Broker) -> Worker:
    client: dict[str, str | int | float | bool] = {"bootstrap.servers": running.bootstrap}
    names = Topics(f"{secrets.token_hex(4)}-")
    topics.ensure(client, names, partitions=PARTITIONS)
    return Worker(client, names)


@dataclass
class Following:
    """A follower that runs, in a loop of its own."""

    loop: asyncio.AbstractEventLoop
    follower: Follower
    states: States
    store: Store
    metrics: Metrics

    def until(self, reached: Callable[[], object]) -> None:
        """Wait for something to become true."""

        async def wait() -> None:
            ends = time.monotonic() + SECONDS
            while not reached():
                assert time.monotonic() < ends, self.follower.status
                await asyncio.sleep(0.01)

        self.loop.run_until_complete(wait())

    def caught_up(self) -> Following:
        self.until(lambda: self.follower.status.caught_up)
        self.loop.run_until_complete(asyncio.sleep(0))  # what the thread asked of the loop has been done
        return self

    def embedding(self, user_id: str) -> UserEmbedding | None:
        """The user's record as a request would see it."""
        visitor = self.states.visitor(user_id, "")
        return visitor.embedding if visitor is not None else None

    @property
    def read(self) -> float:
        """How many records were read by this follower."""
        return sum(
            sample.value
            for metric in self.metrics.updates.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        )


@contextmanager
def following(
    worker: Worker,
    path: Path,
    client: dict[str, str | int | float | bool] | None = None,
    held: frozenset[int] | None = None,
    bundle: Bundle | None = None,
) -> Iterator[Following]:
    store, metrics = Store(path), Metrics("b")
    states = States(store.get, held)
    loop = asyncio.new_event_loop()
    made = Follower(client or worker.client, worker.names, store, states, metrics, bundle or a_bundle())
    made.start(loop)
    try:
        yield Following(loop, made, states, store, metrics)
    finally:
        made.stop()
        loop.close()
        store.close()


def test_what_is_on_the_topics_comes_into_the_store(worker: Worker, tmp_path: Path) -> None:
    worker.commit(0, 5, "a", "b")
    worker.commit(1, 9, "c")
    worker.drop(0, 6, "b")
    worker.put(worker.names.listings, "l1", b"{}")
    worker.put(worker.names.user_histories, "a", b'{"user_id":"a"}')
    with following(worker, tmp_path / "store") as now:
        now.caught_up()
        assert now.embedding("a") == user("a")
        assert now.states.visitor("b", "") is None
        assert now.store.get(listing_key(b"l1")) == b"{}"
        assert now.store.get(history_key(b"a")) == b'{"user_id":"a"}'
        assert now.store.get(user_key(CHECKPOINT_KEY)) is None
        assert now.follower.status.users == 2
        assert now.states.partitions == PARTITIONS
        assert {number: at.next_offset for number, at in now.states.applied.items()} == {0: 6, 1: 9}
        now.until(lambda: now.follower.status.behind == 0)


def test_freshness_is_of_each_transactions_oldest_click_once_caught_up(
    worker: Worker, tmp_path: Path
) -> None:
    def now_ms() -> int:
        return int(time.time() * 1000)

    def sample(name: str) -> float:
        [metric] = now.metrics.freshness.collect()
        return sum(s.value for s in metric.samples if s.name == f"insession_freshness_seconds_{name}")

    worker.commit(0, 1, "a", oldest=now_ms() - 3_600_000)
    with following(worker, tmp_path / "store") as now:
        now.caught_up()
        assert sample("count") == 0
        worker.commit(0, 2, "a", oldest=now_ms() - 2_000)
        worker.commit(1, 1)
        worker.commit(1, 2, "b", oldest=now_ms() - 5_000)
        now.until(lambda: now.states.applied.get(1) and now.states.applied[1].next_offset == 2)
        now.until(lambda: now.states.applied[0].next_offset == 2)
        assert sample("count") == 2
        assert 7 <= sample("sum") <= 7 + SECONDS


def test_a_click_is_waited_for_until_its_transaction_is_committed(worker: Worker, tmp_path: Path) -> None:
    worker.commit(0, 5, "a")
    with following(worker, tmp_path / "store") as now:
        now.caught_up()
        waiting = now.loop.create_task(now.states.reached(0, 5, SECONDS))
        worker.begin(0, 6, {"a": msgspec.structs.replace(user("a"), offset=5)})
        now.loop.run_until_complete(asyncio.sleep(0.2))
        assert not waiting.done()
        worker.producer.commit_transaction(SECONDS)
        assert now.loop.run_until_complete(waiting)
        seen = now.embedding("a")
        assert seen is not None
        assert seen.offset == 5


def test_an_open_transaction_does_not_keep_it_from_being_ready(worker: Worker, tmp_path: Path) -> None:
    worker.commit(0, 5, "a")
    worker.begin(0, 6, {"b": user("b")})
    try:
        with following(worker, tmp_path / "store") as now:
            now.caught_up()
            assert now.states.visitor("a", "") is not None
    finally:
        worker.producer.abort_transaction(SECONDS)


def test_a_warm_start_goes_on_where_it_was(worker: Worker, tmp_path: Path) -> None:
    worker.commit(0, 5, "a", "b")
    with following(worker, tmp_path / "store") as first:
        first.caught_up()
        assert first.read == 2
    worker.commit(0, 6, "c")
    with following(worker, tmp_path / "store") as second:
        second.caught_up()
        assert second.read == 1
        assert second.follower.status.users == 3
        assert second.states.visitor("a", "") is not None


def test_topics_made_again_begin_from_nothing(worker: Worker, tmp_path: Path) -> None:
    worker.commit(0, 5, "a", "b")
    with following(worker, tmp_path / "store") as now:
        now.caught_up()
    admin = AdminClient({**worker.client, "log_level": 0})
    for future in admin.delete_topics([worker.names.user_embeddings]).values():
        future.result()
    ends = time.monotonic() + SECONDS
    while worker.names.user_embeddings in admin.list_topics(timeout=5).topics:
        assert time.monotonic() < ends
        time.sleep(0.05)
    topics.ensure(worker.client, worker.names, partitions=PARTITIONS)
    again = Worker(worker.client, worker.names)
    again.commit(1, 1, "z")
    with following(worker, tmp_path / "store") as now:
        now.until(lambda: now.follower.status.caught_up and now.states.visitor("z", ""))
        assert now.states.visitor("a", "") is None
        assert now.follower.status.users == 1


@pytest.mark.kafka
def test_a_position_that_is_not_there_any_more_begins_from_nothing(kafka: Broker, tmp_path: Path) -> None:
    worker = a_worker(kafka)
    worker.commit(0, 5, "a")
    with following(worker, tmp_path / "store") as now:
        now.caught_up()
    store = Store(tmp_path / "store")
    key = f"o{worker.names.user_embeddings}/0".encode()
    store.write({key: b'{"position": 1000}', user_key(b"ghost"): b"{}"})
    store.close()
    with following(worker, tmp_path / "store") as now:
        # For a moment it may seem to be there already, until the broker says that there is no such offset.
        now.until(lambda: now.store.get(user_key(b"ghost")) is None)
        now.until(lambda: now.follower.status.caught_up and now.states.visitor("a", ""))
        assert now.follower.status.users == 1


def test_a_store_that_missed_tombstones_begins_from_nothing(worker: Worker, tmp_path: Path) -> None:
    worker.commit(0, 5, "a")
    with following(worker, tmp_path / "store") as now:
        now.until(lambda: now.follower.status.seen is not None)
    store = Store(tmp_path / "store")
    standing = msgspec.json.decode(store.get(b"m") or b"")
    standing["seen"] -= 3 * 24 * 3600 * 1000
    store.write({b"m": msgspec.json.encode(standing), user_key(b"ghost"): b"{}"})
    store.close()
    with following(worker, tmp_path / "store") as now:
        now.until(lambda: now.store.get(user_key(b"ghost")) is None)
        now.until(lambda: now.follower.status.caught_up and now.states.visitor("a", ""))


def test_a_store_of_another_version_begins_from_nothing(worker: Worker, tmp_path: Path) -> None:
    worker.commit(0, 5, "a")
    store = Store(tmp_path / "store")
    store.write({b"m": b'{"version": 9}', user_key(b"ghost"): b"{}"})
    store.close()
    with following(worker, tmp_path / "store") as now:
        now.until(lambda: now.follower.status.caught_up and now.states.visitor("a", ""))
        assert now.store.get(user_key(b"ghost")) is None


def test_without_a_broker_it_answers_from_what_it_has(worker: Worker, tmp_path: Path) -> None:
    worker.commit(0, 5, "a")
    with following(worker, tmp_path / "store") as now:
        now.caught_up()
    with following(worker, tmp_path / "store", {"bootstrap.servers": "127.0.0.1:1"}) as now:
        now.until(lambda: now.follower.status.problem.startswith("can't follow"))
        assert not now.follower.status.caught_up
        assert now.embedding("a") == user("a")
        assert now.states.applied[0].next_offset == 5
        assert now.follower.status.users == 1


def test_a_broker_that_goes_away_is_told_and_nothing_counts_as_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(cluster, "SECONDS", 0.5)
    with broker.embedded() as running:
        worker = a_worker(running)
        worker.commit(0, 5, "a")
        with following(worker, tmp_path / "store") as now:
            now.caught_up()
            status = now.follower.status
            running.process.kill()
            now.until(lambda: status.problem)
            seen = status.seen
            now.loop.run_until_complete(asyncio.sleep(1.5))
            assert status.seen == seen
            assert status.caught_up
            assert now.embedding("a") == user("a")


def test_topics_that_are_missing_are_named(
    any_broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "AGAIN_SECONDS", 0.05)
    client: dict[str, str | int | float | bool] = {"bootstrap.servers": any_broker.bootstrap}
    nothing = Worker(client, Topics(f"{secrets.token_hex(4)}-"))
    with following(nothing, tmp_path / "store") as now:
        now.until(lambda: nothing.names.user_embeddings in now.follower.status.problem)
        topics.ensure(client, nothing.names, partitions=PARTITIONS)
        now.caught_up()


def test_only_the_partitions_held_are_read(worker: Worker, tmp_path: Path) -> None:
    worker.commit(0, 5, "a", "b")
    worker.commit(1, 9, "c")
    worker.put(worker.names.listings, "l1", b"{}")
    with following(worker, tmp_path / "store", held=frozenset({1})) as now:
        now.caught_up()
        assert now.states.visitor("a", "") is None
        assert now.embedding("c") == user("c")
        assert now.store.get(listing_key(b"l1")) == b"{}"
        assert now.follower.status.users == 1
        assert now.states.partitions == PARTITIONS
        assert [elsewhere(now.states, "a", number) for number in range(PARTITIONS)] == [0, None]
    with following(worker, tmp_path / "store", held=frozenset({1})) as now:
        now.caught_up()
        assert now.read == 0
    with following(worker, tmp_path / "store", held=frozenset({0})) as now:
        now.until(lambda: now.follower.status.caught_up and now.embedding("a"))
        assert now.states.visitor("c", "") is None
        assert now.follower.status.users == 2


def test_partitions_that_are_not_there_are_named(worker: Worker, tmp_path: Path) -> None:
    with following(worker, tmp_path / "store", held=frozenset({1, 7})) as now:
        now.until(lambda: "has the partitions 0 to 1, not 7" in now.follower.status.problem)
        assert not now.follower.status.caught_up


def test_a_session_that_closes_is_kept_until_its_history_comes(worker: Worker, tmp_path: Path) -> None:
    worker.commit(0, 5, "a")
    [session] = USER.state.sessions
    closed = msgspec.structs.replace(user("a"), vector=None, state=State(last=session.last))
    history = append(History(user_id="a"), session)
    with following(worker, tmp_path / "store") as now:
        now.caught_up()
        worker.begin(0, 6, {"a": closed})
        worker.producer.commit_transaction(SECONDS)
        now.until(lambda: now.embedding("a") == closed)
        visitor = now.states.visitor("a", "")
        assert visitor is not None
        assert visitor.closed == (session,)
        worker.put(worker.names.user_histories, "a", msgspec.json.encode(history))
        now.until(lambda: (now.states.visitor("a", "") or visitor).history == history)
        visitor = now.states.visitor("a", "")
        assert visitor is not None
        assert visitor.closed == ()


def test_what_fails_besides_following_does_not_end_it(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "AGAIN_SECONDS", 0.05)
    worker.commit(0, 5, "a")
    failed: list[str] = []

    def failing(name: str) -> Callable[[Spaces], bool]:
        def fail(_: Spaces) -> bool:
            failed.append(name)
            raise RuntimeError(name)

        return fail

    with monkeypatch.context() as patch:
        patch.setattr(Spaces, "work", failing("work"))
        patch.setattr(Spaces, "listings", failing("listings"))
        with following(worker, tmp_path / "store") as now:
            now.until(lambda: {*failed} == {"work", "listings"} and len(failed) > 4)
            patch.undo()
            now.caught_up()
            assert now.embedding("a") == user("a")


def test_a_record_of_which_no_vector_can_be_made_does_not_stop_the_others(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = visit(*(act(at, "l1") for at in range(WINDOWS.events + 1)))
    encode = Encoder.encode

    def refusing(self: Encoder, of: Session | None) -> tuple[float, ...] | None:
        if of is not None and len(of.events) > WINDOWS.events:
            raise ValueError("longer than a session can be")
        return encode(self, of)

    monkeypatch.setattr(Encoder, "encode", refusing)
    poison = msgspec.structs.replace(user("p"), bundle="another", state=State(sessions=(session,)))
    worker.commit(0, 5, "a")
    with following(worker, tmp_path / "store") as now:
        now.caught_up()
        worker.begin(0, 6, {"p": poison, "b": user("b")})
        worker.producer.commit_transaction(SECONDS)
        now.until(lambda: now.embedding("b"))
        assert now.embedding("p") == poison
        topic = worker.names.user_embeddings
        assert now.metrics.unreadable.labels(topic)._value.get() == 1
        assert not now.follower.status.problem


def test_users_records_that_cant_be_read_are_counted(worker: Worker, tmp_path: Path) -> None:
    worker.commit(0, 5, "a")
    with following(worker, tmp_path / "store") as now:
        now.caught_up()
        names = worker.names
        worker.put(names.user_histories, "a", b'{"version": 9}')
        worker.put(names.user_embeddings, "a", b"no JSON")
        worker.put(names.user_embeddings, "b", b"no JSON")

        def unreadable(topic: str) -> float:
            return now.metrics.unreadable.labels(topic)._value.get()

        now.until(lambda: unreadable(names.user_embeddings) == 2)
        now.until(lambda: unreadable(names.user_histories) == 1)
        with pytest.raises(Unreadable):
            now.states.visitor("b", "")
        worker.commit(0, 6, "c")
        now.until(lambda: now.embedding("c"))


def test_a_store_that_is_being_filled_stands_for_nothing(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.commit(0, 5, "a")
    monkeypatch.setattr(Follower, "_compare", lambda *_: 0)  # never full
    with following(worker, tmp_path / "store") as now:
        now.until(lambda: now.embedding("a"))
        assert now.store.get(b"m") is None


def test_listings_of_a_store_that_begins_from_nothing_are_withdrawn(worker: Worker, tmp_path: Path) -> None:
    worker.commit(0, 5, "a")
    store = Store(tmp_path / "store")
    store.write({listing_key(b"new"): msgspec.json.encode(NEW)})
    store.close()
    # Without a position, so that it begins from nothing.
    bundle = placed()
    with following(worker, tmp_path / "store", bundle=bundle) as now:
        now.caught_up()
        assert now.metrics.resets._value.get() == 1
        assert NEW.listing_id not in bundle.row
    assert bundle.announce(NEW.listing_id, NEW)


@pytest.mark.kafka
def test_a_broker_that_comes_back_is_caught_up_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(cluster, "SECONDS", 0.5)
    kafka = Kafka(kafka_home(), tmp_path / "kafka")
    try:
        worker = a_worker(kafka.running)
        worker.commit(0, 5, "a")
        with following(worker, tmp_path / "store") as now:
            now.caught_up()
            status = now.follower.status
            now.until(lambda: status.seen)
            kafka.running.process.kill()
            now.until(lambda: status.problem)
            assert status.caught_up
            assert now.embedding("a") == user("a")
            kafka.restart()
            Worker(worker.client, worker.names).commit(0, 6, "b")
            now.until(lambda: now.embedding("b"))
            now.until(lambda: not status.problem)
            assert now.metrics.resets._value.get() == 0
    finally:
        kafka.end()
