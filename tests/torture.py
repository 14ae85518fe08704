"""Two workers on Apache Kafka, killed, stopped and restarted under load: what they publish must be the oracle's, to the record.

`make torture` runs it whole; tests/test_torture.py runs a shorter one, and one with each guarantee switched off.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from confluent_kafka import Producer

from models import bundle as bundles
from models.bundle import Bundle
from models.history import ClosedSession, History
from models.sessions import Action, Kept, Left, Shown
from models.states import decode_embedding
from models.topics import CHECKPOINT_KEY, Topics
from streams import topics
from streams.producing import send
from streams.reader import reader
from streams.topics import Client
from tests.checkpoints import Checkpoints
from tests.fleet import Fleet, Kafka
from tests.made import a_bundle
from tests.oracle import Oracle, brief, vector
from tests.torture_load import LISTINGS, PARTITIONS, Sent, load

WHOLE = 200_000
"""With so many events it must also be as hard as it is meant to be."""


@dataclass(frozen=True)
class Plan:
    """How much, how fast, and what happens."""

    events: int = 200_000
    rate: int = 2_000
    """Events a second, by the clock."""
    speed: int = 400
    """How much faster event time runs than the clock."""
    kills: int = 5
    stops: int = 3
    changes: int = 2
    restarts: int = 1
    seed: int = 1
    without: str = ""
    """A guarantee that the workers do without; see tests/faulty_worker.py."""


@dataclass
class Watch:
    """Follows the checkpoints, and says how long each partition stood still."""

    client: Client
    names: Topics
    offsets: dict[int, int] = field(default_factory=dict)
    moved: dict[int, float] = field(default_factory=dict)
    longest: float = 0.0
    ending: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.ending.is_set():
            try:
                with reader(self.client, self.ending.is_set) as source:
                    seen = Checkpoints(source, self.names, PARTITIONS)
                    while not self.ending.is_set():
                        for number, offset in seen.look().items():
                            self.note(number, offset)
                        time.sleep(0.1)
            except Exception:
                time.sleep(0.5)  # the broker is being started again

    def note(self, number: int, offset: int) -> None:
        now = time.monotonic()
        if offset > self.offsets.get(number, 0):
            self.longest = max(self.longest, now - self.moved.get(number, now))
            self.offsets[number], self.moved[number] = offset, now


@dataclass
class Outcome:
    """What a torture came to."""

    plan: Plan
    differences: list[str]
    happened: list[str]
    put_in: Counter[str]
    dead: Counter[str]
    facts: dict[str, object]

    def table(self) -> str:
        lines = [f"torture, seed {self.plan.seed}: {'EQUAL' if not self.differences else 'DIFFERENT'}"]
        lines += [f"  {name:34} {value}" for name, value in self.facts.items()]
        lines += ["  what happened:"] + [f"    {one}" for one in self.happened]
        lines += [f"  DIFFERENT {one}" for one in self.differences[:20]]
        return "\n".join(lines)


def run(plan: Plan, home: Path, *, patience: float = 120.0) -> Outcome:
    """Run it, and compare. `patience` is how long the workers may take after the last event, in seconds."""
    rng = random.Random(plan.seed)
    made = load(plan.events, plan.rate, plan.speed, plan.seed)
    happened: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="insession-torture-")))
        bundles.write(folder / "bundles", a_bundle(LISTINGS, 16))
        loaded = bundles.load(folder / "bundles")
        kafka = Kafka(home, folder / "kafka")
        stack.callback(lambda: kafka.end())
        client: Client = {"bootstrap.servers": kafka.running.bootstrap}
        names = Topics(f"torture-{secrets.token_hex(4)}-")
        topics.ensure(client, names, partitions=PARTITIONS, retention_ms=-1)
        flags = ["--bootstrap", kafka.running.bootstrap, "--topic-prefix", names.prefix]
        fleet = Fleet(folder, [*flags, "--bundle", str(folder / "bundles")], plan.without)
        fleet.start()
        stack.callback(fleet.end)
        watch = Watch(client, names)
        watching = threading.Thread(target=watch.run)
        watching.start()
        stack.callback(watching.join)
        stack.callback(watch.ending.set)
        time.sleep(8)

        begun = time.monotonic()
        producing = threading.Thread(target=produce, args=(client, names.clicks, made.records, plan.rate))
        producing.start()
        seconds = len(made.records) / plan.rate
        what = ["kill"] * plan.kills + ["stop"] * plan.stops + ["change"] * plan.changes
        what += ["restart"] * plan.restarts
        rng.shuffle(what)
        moments = sorted(rng.uniform(0.03, 0.97) * seconds for _ in what)
        for moment, action in zip(moments, what, strict=True):
            time.sleep(max(0.0, begun + moment - time.monotonic()))
            at = time.monotonic() - begun
            said = kafka.restart() if action == "restart" else getattr(fleet, action)(rng)
            while not said:
                time.sleep(0.2)
                said = getattr(fleet, action)(rng)
            happened.append(f"{at:6.1f} s  {said}")
        producing.join()
        produced = time.monotonic() - begun
        ends = Counter(record.partition for record in made.records)
        until = time.monotonic() + patience
        while time.monotonic() < until and any(
            watch.offsets.get(number, 0) < end for number, end in ends.items()
        ):
            time.sleep(0.2)
        settled = time.monotonic() - begun
        time.sleep(3)  # What is due at the last record closes behind it, at most some thousands a batch.
        fleet.end()
        differences = []
        if any(watch.offsets.get(number, 0) < end for number, end in ends.items()):
            differences.append(f"the workers came to {watch.offsets}, not to {dict(ends)}")
        oracles = expected(made.records)
        differences += compare(client, names, oracles, loaded)
    dead = Counter(reason for oracle in oracles for _, reason in oracle.dead)
    total = len(made.records)
    closed = sum(len(oracle.closed) for oracle in oracles)
    span = made.records[-1].timestamp - made.records[0].timestamp
    put_in = Counter({name: made.put_in[name] for name in ("late", "impossible", "unreadable")})
    if dead != put_in:
        differences.append(f"dead letters are {dict(dead)}, and {dict(put_in)} were put in")
    if total >= WHOLE:
        differences += [
            f"not a torture: {what} {found:,.2f}, at least {least:,} wanted"
            for what, found, least in (
                ("events/s", total / produced, 2_000),
                ("event time / clock", span / 1_000 / produced, 100),
                ("sessions closed", closed, 10_000),
                ("% out of order", 100 * made.put_in["out of order"] / total, 5),
                ("% duplicate", 100 * made.put_in["duplicate"] / total, 2),
                ("% late", 100 * made.put_in["late"] / total, 1),
            )
            if found < least
        ]
    facts: dict[str, object] = {
        "events": f"{total:,} at {total / produced:,.0f}/s, applied after {settled:.0f} s",
        "event time / clock": f"{span / 1000 / produced:.0f}",
        "sessions closed": f"{closed:,}",
        "users with a state": f"{sum(len(oracle.users) for oracle in oracles):,}",
        **{
            f"{name} put in": f"{count:,} ({count / total:.2%})"
            for name, count in sorted(made.put_in.items())
        },
        **{
            f"dead letters, {name}": f"{count:,} ({count / total:.2%})"
            for name, count in sorted(dead.items())
        },
        "workers that ended": dict(Counter(fleet.ended)),
        "a partition stood still at most": f"{watch.longest:.1f} s",
    }
    return Outcome(plan, differences, happened, made.put_in, dead, facts)


def produce(client: Client, topic: str, records: list[Sent], rate: int) -> None:
    """Produce the records in their order at a steady rate, through restarts of the broker."""
    producer = Producer({**client, "enable.idempotence": True, "linger.ms": 5, "log_level": 0})
    begun = time.monotonic()
    for at, record in enumerate(records):
        if at % 20 == 0:
            producer.poll(max(0.0, begun + at / rate - time.monotonic()))
        send(
            producer,
            topic,
            key=record.key,
            value=record.value,
            partition=record.partition,
            timestamp=record.timestamp,
        )
    while producer.flush(5):
        pass


def expected(records: list[Sent]) -> list[Oracle]:
    """What the oracle makes of each partition."""
    oracles = [Oracle() for _ in range(PARTITIONS)]
    offsets = [0] * PARTITIONS
    for record in records:
        number = record.partition
        oracles[number].apply(offsets[number], record.timestamp, record.key, record.value)
        offsets[number] += 1
    return oracles


def short(event: Kept) -> tuple[object, ...]:
    """An event of a state as the oracle identifies it."""
    match event:
        case Left():
            return (event.timestamp, event.event_id, "leave", event.of)
        case Action():
            return (event.timestamp, event.event_id, event.kind, event.listing_id)
        case Shown():
            return (event.timestamp, event.event_id, "search", None)


def compare(client: Client, names: Topics, oracles: list[Oracle], bundle: Bundle) -> list[str]:
    """What committed readers find that is not the oracle's, or not at all."""
    differences: list[str] = []
    with reader(client) as source:

        def last(topic: str, number: int) -> dict[str, bytes]:
            found: dict[bytes, bytes | None] = {}
            for messages, _ in source.read(topic, number):
                found |= {m.key() or b"": m.value() for m in messages if m.key() != CHECKPOINT_KEY}
            return {key.decode(): value for key, value in found.items() if value is not None}

        for number, oracle in enumerate(oracles):

            def differ(what: str, found: object, wanted: object, number: int = number) -> None:
                if found != wanted:
                    differences.append(f"partition {number}, {what}: {unlike(found, wanted)}")

            embeddings = {
                key: decode_embedding(value) for key, value in last(names.user_embeddings, number).items()
            }
            differ("users", sorted(embeddings), sorted(oracle.users))
            for name in embeddings.keys() & oracle.users.keys():
                found, user = embeddings[name], oracle.users[name]
                state, open_ = found.state, oracle.sessions(user)
                differ(
                    f"state of {name}",
                    (
                        [(s.first, [short(e) for e in s.events]) for s in state.sessions],
                        state.last,
                        state.forgotten,
                    ),
                    ([(s[0].timestamp, [brief(e) for e in s[-100:]]) for s in open_], user.last, user.mark),
                )
                differ(f"place of {name}", (found.partition, found.offset), (number, user.offset))
                wanted = vector(open_[-1][-100:], bundle) if open_ else None
                near = (found.vector is None) == (wanted is None) and all(
                    abs(one - other) < 1e-5
                    for one, other in zip(found.vector or (), wanted or (), strict=True)
                )
                differ(f"vector of {name} is near", (near, found.bundle), (True, bundle.name))
            histories = {
                key: msgspec.json.decode(value, type=History)
                for key, value in last(names.user_histories, number).items()
            }
            differ(
                "histories",
                {
                    key: [
                        (v.first, v.last, sorted(map(msgspec.structs.astuple, v.done), key=repr))
                        for v in h.visits
                    ]
                    for key, h in histories.items()
                },
                {name: user.visits for name, user in oracle.users.items() if user.visits},
            )
            closed = [
                msgspec.json.decode(m.value() or b"", type=ClosedSession)
                for messages, _ in source.read(names.sessions, number)
                for m in messages
            ]
            differ(
                "closed sessions",
                multiset([(c.user_id, c.first, c.last, [short(e) for e in c.events]) for c in closed]),
                multiset(oracle.closed),
            )
            dead = [
                (int(headers["offset"] or b""), (headers["reason"] or b"").decode())
                for messages, _ in source.read(names.dead_letters, number)
                for m in messages
                for headers in [dict(m.headers() or [])]
            ]
            differ("dead letters", multiset(dead), multiset(oracle.dead))
    return differences


def multiset(rows: Iterable[object]) -> Counter[str]:
    return Counter(map(repr, rows))


def unlike(found: object, wanted: object) -> str:
    """Where two differ, as short as can be read."""
    if isinstance(found, Counter) and isinstance(wanted, Counter):
        extra, missing = list((found - wanted).elements()), list((wanted - found).elements())
        return f"{len(extra)} too many {extra[:2]!r:.300}, {len(missing)} missing {missing[:2]!r:.300}"
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)]
        return f"{len(keys)} differ, {keys[0]}: {unlike(found.get(keys[0]), wanted.get(keys[0]))}"
    return f"found {found!r:.300}, expected {wanted!r:.300}"


def main() -> None:
    plan = Plan()
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("events", "rate", "speed", "kills", "stops", "changes", "restarts", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(plan, name))
    parser.add_argument("--without", default="", help="a guarantee to switch off; the torture must then fail")
    home = os.environ.get("KAFKA_HOME")
    if not home:
        sys.exit("KAFKA_HOME is not set: the torture needs Apache Kafka")
    outcome = run(Plan(**vars(parser.parse_args())), Path(home))
    print(outcome.table())
    sys.exit(1 if outcome.differences else 0)


if __name__ == "__main__":
    main()
