"""Another bundle is taken between two requests: its vectors are there before it is, and no answer is of two. Variants'
bundles have everybody's vectors all along."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import product
from pathlib import Path

import msgspec
import pytest

from insession import security
from insession.online import Producing
from insession.processes import insession
from insession.running import ALONE, running
from insession.settings import PREFIX
from insession.sidecar import Sidecar
from models import bundle as bundles
from models import listings, rank
from models.bundle import Bundle
from models.current import Current
from models.events import Click
from models.listings import Listing
from models.rank import Candidate
from models.sessions import Action, Session, State, UserEmbedding
from models.states import user_key
from models.store import Store
from models.topics import Topics
from models.visitor import Visitor
from serving import cluster, spaces, vectors, watch
from serving.api import RankRequest, RankResponse
from serving.follower import Follower
from serving.health import Health
from serving.metrics import Metrics
from serving.ranking import Ranking
from serving.spaces import listing_key
from serving.standing import Standing
from serving.states import States
from serving.variants import parse
from serving.watch import Watch
from streams.topics import Client
from tests.made import a_bundle, act, unit, user_in, visit
from tests.path import NEW, announce, as_record, placed

SECONDS = 20.0
NOWHERE = {"bootstrap.servers": "127.0.0.1:1"}
SESSION = visit(act(0, "l1"), act(5, "l2"))
NAMES = [f"visitor{number}" for number in range(200)]


def another(seed: int, dimensions: int = 8) -> Bundle:
    return a_bundle(vectors=unit(50, dimensions, seed))


def kept(folder: Path, bundle: Bundle) -> Bundle:
    """The bundle with a name, as it is read from a folder."""
    return bundles.load(bundles.write(folder, bundle))


class Serving:
    """What a sidecar is made of but HTTP, over a store with users, with no broker in reach."""

    def __init__(self, folder: Path, store: Store, used: str, beside: Sequence[Bundle]) -> None:
        current = Current(folder)
        loaded = current.load()
        self.store = store
        record = msgspec.structs.replace(user_in(loaded, *SESSION.events), bundle=used)
        for name in NAMES:
            value = msgspec.json.encode(msgspec.structs.replace(record, user_id=name))
            store.write({user_key(name.encode()): value})
        if store.get(b"m") is None:
            full = frozenset((used,))
            standing = Standing(cluster="c", topics={}, seen=1, partitions=1, held=None, vectors=full)
            store.write({b"m": msgspec.json.encode(standing)})
        self.metrics = Metrics(loaded.name)
        self.ranking = Ranking(loaded, States(store.get), metrics=self.metrics)
        self.follower = Follower(NOWHERE, Topics(), store, self.ranking.states, self.metrics, loaded, beside)
        self.watch = Watch(
            current, lambda new: self.follower.take(new, self.switch), self.follower.status, self.metrics
        )
        self.loop = asyncio.new_event_loop()

    def switch(self, new: Bundle) -> None:
        self.ranking.bundle = new

    def until(self, reached: Callable[[], object]) -> None:
        async def wait() -> None:
            ends = time.monotonic() + SECONDS
            while not reached():
                assert time.monotonic() < ends
                await asyncio.sleep(0.005)

        self.loop.run_until_complete(wait())

    def record(self, name: str, bundle: str) -> UserEmbedding:
        visitor = self.ranking.states.visitor(name, bundle)
        assert visitor is not None
        return visitor.embedding

    def spaces(self) -> set[bytes]:
        """The spaces in which there are vectors beside the records."""
        return {key.split(b"/")[0] + b"/" for key, _ in self.store.items(b"v", b"w")}

    @property
    def recomputed(self) -> float:
        return self.metrics.recomputed._value.get()


@contextmanager
def serving(folder: Path, used: str | None = None, beside: Sequence[Bundle] = ()) -> Iterator[Serving]:
    with closing(Store(folder / "store")) as store:
        made = Serving(folder, store, bundles.load(folder).name if used is None else used, beside)
        made.follower.start(made.loop)
        try:
            yield made
        finally:
            made.follower.stop()
            made.loop.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cluster, "SECONDS", 0.1)
    bundles.write(tmp_path, a_bundle())
    return tmp_path


def test_a_new_bundle_comes_with_everybodys_vectors(folder: Path) -> None:
    with serving(folder) as made:
        old, switched = made.ranking.bundle, []

        def switch(new: Bundle) -> None:
            switched.extend(made.record(name, new.name) for name in NAMES)
            made.ranking.bundle = new

        made.switch = switch  # type: ignore[method-assign]
        bundles.write(folder, another(1, 16))
        made.watch.look()
        made.until(lambda: made.ranking.bundle is not old)
        new = made.ranking.bundle
        assert {record.vector for record in switched} == {new.encode(SESSION)}
        assert {record.bundle for record in switched} == {new.name}
        # A request under way with the old one goes on with the old one's.
        assert made.record("visitor3", old.name).vector == old.encode(SESSION)


def test_listings_announced_before_are_announced_to_the_new_bundle(folder: Path) -> None:
    vectors_ = unit(50, 8, 1)
    vectors_[7] = 0
    with serving(folder) as made:
        old = made.ranking.bundle
        listing = Listing(listing_id="l7")
        made.store.write({listing_key(b"l7"): msgspec.json.encode(listing)})
        told: list[str] = []
        bundles.write(folder, a_bundle(vectors=vectors_))
        announce = Bundle.announce

        def spy(bundle: Bundle, listing_id: str, listing: Listing | None) -> bool:
            told.append(f"{bundle.name} {listing_id}")
            return announce(bundle, listing_id, listing)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Bundle, "announce", spy)
            made.watch.look()
            made.until(lambda: made.ranking.bundle is not old)
        assert told == [f"{made.ranking.bundle.name} l7"]


def test_the_old_bundle_and_its_vectors_are_given_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "LEAVING_SECONDS", 0.05)
    with serving(folder) as made:
        last = weakref.ref(made.ranking.bundle)
        for seed in range(1, 4):
            name = made.ranking.bundle.name
            bundles.write(folder, another(seed))
            made.watch.look()
            made.until(lambda name=name: made.ranking.bundle.name != name)  # type: ignore[misc]
            gc.collect()
            made.until(lambda last=last: last() is None)  # type: ignore[misc]
            last = weakref.ref(made.ranking.bundle)

        made.until(lambda: made.spaces() == {vectors.space(made.ranking.bundle.name)})


def test_vectors_are_brought_to_a_bundle_that_came_while_it_did_not_run(folder: Path) -> None:
    with serving(folder, used="another") as made:
        bundle = made.ranking.bundle
        made.until(lambda: made.record(NAMES[-1], bundle.name).bundle == bundle.name)
        made.until(lambda: made.recomputed == len(NAMES))
        assert made.record(NAMES[0], bundle.name).vector == bundle.encode(SESSION)


def test_until_a_vector_is_there_the_answer_is_stale(folder: Path) -> None:
    with serving(folder) as made:
        bundle = another(1)
        visitor = made.ranking.states.visitor(NAMES[0], "another")
        answered = rank.rank(bundle, visitor, [Candidate("l1"), Candidate("l2")], timestamp=SESSION.last)
        assert visitor is not None
        assert visitor.embedding.bundle != "another"
        assert answered.outcome == "ranked"  # without the similarity: /v1/rank says `stale`


def test_a_broken_bundle_is_refused_and_the_old_one_goes_on(folder: Path) -> None:
    with serving(folder) as made:
        old = made.ranking.bundle
        broken = bundles.write(folder, another(1))
        damaged = broken / "ranker.json"
        content = damaged.read_bytes()
        damaged.write_bytes(content[:-1])
        made.watch.look()
        made.watch.look()
        health = Health(made.follower.status, made.ranking, made.metrics)
        assert "ranker.json: damaged" in health.readiness(0).notes[-1]
        assert made.metrics.refused._value.get() == 1
        assert made.ranking.bundle is old
        damaged.write_bytes(content)
        made.watch.look()
        made.until(lambda: made.ranking.bundle.name == broken.name)
        assert not any("refused" in note for note in health.readiness(0).notes)


def test_a_bundle_with_a_price_that_is_none_is_refused_and_the_watching_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SECONDS", 0.02)
    known = [Listing(listing_id=f"l{row}", price=-1.0) for row in range(50)]
    with serving(folder) as made:
        old = made.ranking.bundle
        health = Health(made.follower.status, made.ranking, made.metrics)
        with monkeypatch.context() as patch:
            patch.setattr(bundles, "log_price", lambda price: 0.0)  # it is written without a look at prices
            broken = bundles.assemble(
                listings=listings.collect(known),
                vectors=unit(50, 8, 1),
                ranker=old.ranker,
                training=old.manifest.training,
            )
            bundles.write(folder, broken)
        made.watch.start()
        try:
            made.until(lambda: any("refused" in note for note in health.readiness(0).notes))
            bundles.write(folder, another(2))
            made.until(lambda: made.ranking.bundle is not old)
        finally:
            made.watch.stop()
        assert made.metrics.refused._value.get() == 1
        assert not any("refused" in note for note in health.readiness(0).notes)


@pytest.mark.parametrize("name", ["find", "load"])
def test_what_nobody_thought_of_does_not_end_the_watching(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with serving(folder) as made:
        old = made.ranking.bundle
        bundles.write(folder, another(1))
        with monkeypatch.context() as patch:
            patch.setattr(bundles, name, fail)
            made.watch.look()
            made.watch.look()
        assert "Permission denied" in made.follower.status.refused
        assert made.metrics.refused._value.get() == 1
        bundles.write(folder, another(2))
        made.watch.look()
        made.until(lambda: made.ranking.bundle is not old)
        assert not made.follower.status.refused


def test_a_bundle_that_cannot_be_brought_up_is_told_of_and_the_next_one_is_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(folder) as made:
        old = made.ranking.bundle
        bundles.write(folder, another(1))
        with monkeypatch.context() as patch:
            patch.setattr(vectors, "read", lambda *_: 1 / 0)
            made.watch.look()
            made.until(lambda: made.follower.status.refused)
        made.watch.look()
        health = Health(made.follower.status, made.ranking, made.metrics)
        assert any("can't be brought up" in note for note in health.readiness(0).notes)
        assert made.metrics.refused._value.get() == 1
        assert made.follower.spaces.bundles == [old]
        assert made.ranking.bundle is old
        bundles.write(folder, another(2))
        made.watch.look()
        made.until(lambda: made.ranking.bundle is not old)
        assert "brought up" not in str(health.readiness(0).notes)


def test_a_bundle_that_is_taken_back_at_once_is_not_switched_to(folder: Path) -> None:
    with serving(folder) as made:
        old = made.ranking.bundle.name
        link = folder / "current"
        bundles.write(folder, another(1))
        made.watch.look()
        link.unlink()
        link.symlink_to(old)
        made.watch.look()
        made.until(lambda: made.follower.spaces._work is None and made.follower.spaces._offered is None)
        assert made.ranking.bundle.name == old


def test_a_variants_bundle_has_everybodys_vectors_and_keeps_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spaces, "LEAVING_SECONDS", 0.05)
    variants = [kept(folder / "variants", another(1, 16)), kept(folder / "variants", another(2))]
    with serving(folder, beside=variants) as made:
        made.until(lambda: made.recomputed == 2 * len(NAMES))
        for name, variant in product((NAMES[0], NAMES[-1]), variants):
            assert made.record(name, variant.name).vector == variant.encode(SESSION)
        old = made.ranking.bundle
        bundles.write(folder, another(3))
        made.watch.look()
        made.until(lambda: made.ranking.bundle is not old)
        new = made.ranking.bundle
        left = {vectors.space(bundle.name) for bundle in (new, *variants)}
        made.until(lambda: made.follower.spaces._leaving is None and made.spaces() == left)
        for variant in variants:
            assert made.record(NAMES[7], variant.name).vector == variant.encode(SESSION)
        # A variant's bundle that comes into use has its vectors already.
        before = made.recomputed
        bundles.write(folder, variants[0])
        made.watch.look()
        made.until(lambda: made.ranking.bundle is not new)
        made.until(lambda: made.spaces() == {vectors.space(variant.name) for variant in variants})
        assert made.recomputed == before == 3 * len(NAMES)


def test_vectors_of_a_bundle_that_is_not_given_any_more_are_dropped(folder: Path) -> None:
    variant = kept(folder / "variants", another(1))
    for recomputed in (len(NAMES), len(NAMES)):
        with serving(folder, beside=[variant]) as made:
            made.until(lambda made=made, number=recomputed: made.recomputed == number)  # type: ignore[misc]
            assert made.spaces() == {vectors.space(variant.name)}
        with serving(folder) as made:
            made.until(lambda made=made: not made.spaces())  # type: ignore[misc]


def test_a_warm_start_makes_no_vector_of_a_variants_bundle_again(folder: Path) -> None:
    variant = kept(folder / "variants", another(1))
    with serving(folder, beside=[variant]) as made:
        made.until(lambda: made.recomputed == len(NAMES))
    with serving(folder, beside=[variant]) as made:
        made.until(lambda: made.follower.spaces._leaving is None)
        assert made.record(NAMES[3], variant.name).vector == variant.encode(SESSION)
    assert made.recomputed == 0
    assert not made.follower.spaces.lacks(variant)
    assert not made.follower.spaces.lacks(made.follower.spaces.bundle)


def test_listings_announced_before_the_start_are_announced_to_a_variants_bundle(folder: Path) -> None:
    ours, theirs = placed(), placed(dimensions=16)
    with closing(Store(folder / "store")) as store:
        store.write({listing_key(b"new"): msgspec.json.encode(NEW)})
    bundles.write(folder, ours)
    with serving(folder, beside=[theirs]) as made:
        made.until(lambda: "new" in theirs.row and "new" in made.ranking.bundle.row)


USERS = 20
CANDIDATES = (*(Candidate(f"l{number}") for number in range(30)), Candidate(NEW.listing_id))


def test_no_answer_under_load_fails_or_is_of_two_bundles(tmp_path: Path) -> None:
    made = [a_bundle(40), a_bundle(vectors=unit(40, 16, 1)), a_bundle(vectors=unit(40, 8, 2))]
    named = {}
    for bundle in reversed(made):
        path = bundles.write(tmp_path, bundle)
        named[path.name] = bundles.load(path)
    order = list(named)[::-1]  # the first is current
    now = int(time.time() * 1000)
    visits = {f"u{number}": _visit(number, now) for number in range(USERS)}
    expected = {
        (name, user): _expected(bundle, user, session)
        for name, bundle in named.items()
        for user, session in visits.items()
    }
    answers: list[tuple[str, RankResponse]] = []
    stopping = threading.Event()
    failed: list[BaseException] = []

    def ask(url: str, first: int) -> None:
        number = first
        try:
            with closing(Sidecar(url)) as sidecar:
                while not stopping.is_set():
                    user = f"u{number % USERS}"
                    number += 1
                    request = RankRequest(user_id=user, candidates=CANDIDATES, timestamp=now)
                    answers.append((user, sidecar.rank(request)))
        except BaseException as error:
            failed.append(error)

    with running(tmp_path, partitions=2) as (client, names, sidecar):
        for user, (partition, offset) in _clicked(client, names, visits).items():
            assert sidecar.rank(_after(user, partition, offset, now)).outcome == "ranked"
        asking = [threading.Thread(target=ask, args=(sidecar.url, 7 * n)) for n in range(3)]
        for thread in asking:
            thread.start()
        for name in [order[1], order[2], order[0], order[1]]:
            bundles.point(tmp_path, name)
            ends = time.monotonic() + SECONDS
            while answers[-1:] and answers[-1][1].bundle != name:
                assert time.monotonic() < ends, failed
                time.sleep(0.05)
            time.sleep(0.3)
        stopping.set()
        for thread in asking:
            thread.join()
    assert not failed
    assert {answer.bundle for _, answer in answers} == set(order)
    for user, answer in answers:
        assert answer.outcome == "ranked"
        assert not answer.stale
        listings, scores = expected[answer.bundle, user]
        assert [result.listing_id for result in answer.results] == listings
        assert [result.score for result in answer.results] == pytest.approx(scores, abs=1e-5)


def test_users_of_a_variant_are_ranked_with_its_bundle_and_their_vectors_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "bundles"
    bundles.write(folder, placed())
    other = bundles.write(tmp_path / "next", placed(dimensions=16))
    flags = ["--variant", f"next=0.5:{other}", "--experiment", "e"]
    dealt = parse(flags[1:2], "e")
    now = int(time.time() * 1000)
    visits = {f"u{number}": _visit(number, now) for number in range(USERS)}
    assert {dealt.of(user).name for user in list(visits)[:5]} == {"default", "next"}
    loaded = {"default": bundles.load(folder), "next": bundles.load(other)}

    def check(user: str, answer: RankResponse) -> None:
        bundle = loaded[answer.variant]
        assert (answer.variant, answer.bundle) == (dealt.of(user).name, bundle.name)
        assert (answer.outcome, answer.stale) == ("ranked", False)
        listings, scores = _expected(bundle, user, visits[user])
        assert [result.listing_id for result in answer.results] == listings
        assert [result.score for result in answer.results] == pytest.approx(scores, abs=1e-5)
        assert [result.known for result in answer.results if result.listing_id == NEW.listing_id] == [
            NEW.listing_id in bundle.row
        ]

    with running(folder, partitions=2) as (client, names, first):
        # Of these there are states before the sidecar with variants starts; the others come while it runs.
        early = dict(list(visits.items())[: USERS // 2])
        for user, (partition, offset) in _clicked(client, names, early).items():
            assert first.rank(_after(user, partition, offset, now)).outcome == "ranked"
        common = ["--bootstrap", str(client["bootstrap.servers"]), "--bundle", str(folder)]
        common += ["--state", str(tmp_path / "state"), "--port", "0"]
        environment, log = {**security.off(PREFIX), **ALONE}, tmp_path / "serve.log"
        with (
            insession(
                "serve", *common, *flags, ready="serving on ", log=log, environment=environment
            ) as process,
            closing(Sidecar(process.line.removeprefix("serving on "))) as sidecar,
        ):
            sidecar.wait_until_ready()

            def answers(users: Iterable[str]) -> dict[str, RankResponse]:
                request = RankRequest(user_id="", candidates=CANDIDATES, timestamp=now)
                return {u: sidecar.rank(msgspec.structs.replace(request, user_id=u)) for u in users}

            def until(reached: Callable[[RankResponse], bool], users: Iterable[str]) -> None:
                ends = time.monotonic() + SECONDS
                while not all(map(reached, (found := answers(users)).values())):
                    assert time.monotonic() < ends
                    time.sleep(0.05)
                for user, answer in found.items():
                    check(user, answer)

            until(lambda answer: not answer.stale, early)
            late = {user: session for user, session in visits.items() if user not in early}
            for user, (partition, offset) in _clicked(client, names, late).items():
                check(user, sidecar.rank(_after(user, partition, offset, now)))
            announce((client, names), NEW)
            for bundle in loaded.values():
                assert bundle.announce(NEW.listing_id, NEW)
            until(lambda answer: all(result.known for result in answer.results), visits)


def _clicked(client: Client, names: Topics, visits: Mapping[str, Session]) -> dict[str, tuple[int, int]]:
    """Produce the visits' clicks: partition and offset of each user's last."""
    producing = Producing(client, names.clicks)
    last = {}
    for user, session in visits.items():
        for event in session.events:
            assert isinstance(event, Action)
            said = Click(
                event_id=event.event_id,
                user_id=user,
                timestamp=event.timestamp,
                listing_id=event.listing_id,
            )
            item = as_record(said)
            producing.produce(item.partition or 0, item)
        place = producing.last(user.encode())
        assert place is not None
        last[user] = place
    return last


def _after(user: str, partition: int, offset: int, now: int) -> RankRequest:
    return RankRequest(
        user_id=user,
        candidates=CANDIDATES,
        timestamp=now,
        min_offset=offset,
        partition=partition,
        deadline_ms=10_000,
    )


def _visit(number: int, now: int) -> Session:
    events = tuple(
        Action(now - 60_000 + at * 1_000, f"{number}-{at}", "click", f"l{(number * 3 + at * 5) % 40}")
        for at in range(3)
    )
    return Session(events[0].timestamp, events)


def _expected(bundle: Bundle, user: str, session: Session) -> tuple[list[str], list[float]]:
    record = UserEmbedding(
        user_id=user,
        vector=bundle.encode(session),
        bundle=bundle.name,
        as_of=session.last,
        partition=0,
        offset=0,
        state=State(sessions=(session,), last=session.last),
    )
    ranked = rank.rank(bundle, Visitor.of(record), CANDIDATES, timestamp=session.last)
    assert ranked.scores is not None
    return [CANDIDATES[at].listing_id for at in ranked.order], [ranked.scores[at] for at in ranked.order]
