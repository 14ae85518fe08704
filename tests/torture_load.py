"""What the torture puts on `clicks`: visits of simulated users, some of it late, twice, out of order, ahead or broken."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import msgspec

from models.events import (
    Booking,
    Click,
    Event,
    Forget,
    Inquiry,
    Leave,
    Rejection,
    Result,
    Search,
    Wishlist,
    encode,
)
from models.recording import partition_of
from tests.oracle import MINUTE

PARTITIONS, LISTINGS = 4, 400
START = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class Sent:
    """A record as it is produced."""

    partition: int
    timestamp: int
    key: bytes | None
    value: bytes


@dataclass
class Load:
    """The records in their order, and how many of them are what."""

    records: list[Sent]
    put_in: Counter[str]


def visit(random: random.Random, number: int, begin: int) -> list[Event]:
    """What one visitor does in one visit: searches, and clicks, leaves and the rest of what they show."""
    user, now, events = f"visitor-{number % 9_000}", begin, list[Event]()
    market = random.choice(("Lisbon", "Porto", None))

    def name() -> str:
        return f"{number}-{len(events):03}"

    length = random.choice((2, 4, 8, 12, 20)) if number % 500 else 160
    while len(events) < length:
        listings = random.sample(range(LISTINGS), 6)
        results = tuple(Result(listing_id=f"l{at}", position=place) for place, at in enumerate(listings, 1))
        search = name()
        events.append(
            Search(
                event_id=search, user_id=user, timestamp=now, results=results, market=market, search_id=search
            )
        )
        for at in random.sample(listings, random.randint(0, 3)):
            now += random.randint(2_000, 100_000)
            kind = random.choices((Click, Wishlist, Inquiry, Booking, Rejection), (80, 8, 5, 4, 3))[0]
            clicked = name()
            events.append(
                kind(
                    event_id=clicked,
                    user_id=user,
                    timestamp=now,
                    listing_id=f"l{at}",
                    market=market,
                    search_id=search,
                )
            )
            if kind is Click and random.random() < 0.3:
                seconds = random.randint(5, 180)
                now += seconds * 1_000
                events.append(
                    Leave(event_id=name(), user_id=user, timestamp=now, of=clicked, seconds=float(seconds))
                )
        now += random.randint(5_000, 90_000)
    if random.random() < 0.004:
        events.append(Forget(event_id=name(), user_id=user, timestamp=now))
    return events


def load(events: int, rate: int, speed: int, seed: int) -> Load:
    """A recording of so many records, `rate` a second while event time runs `speed` times faster than the clock, in the order they come, some late, twice, out of order, ahead or broken."""
    rng = random.Random(seed)
    span = events * 1_000 * speed // rate
    coming: list[tuple[int, int, Event | bytes]] = []
    put_in: Counter[str] = Counter()
    number = 0
    while len(coming) < events:
        for event in visit(rng, number, START + rng.randrange(span)):
            drawn = rng.random()
            forget = isinstance(event, Forget)
            delay = rng.randint(15, 60) * MINUTE if drawn < 0.012 and not forget else 0
            if delay and event.timestamp + delay < START + span:
                # Whoever else is in its partition has moved the watermark on by then.
                put_in["late"] += 1
            elif drawn < 0.08 and not forget:
                delay = rng.randint(1_000, 6 * MINUTE)
                put_in["out of order"] += 1
            else:
                delay = 0
            coming.append((event.timestamp + delay, len(coming), event))
            if 0.5 < drawn < 0.525 and not forget:
                coming.append((event.timestamp + rng.randint(0, 2 * MINUTE), len(coming), event))
                put_in["duplicate"] += 1
            elif 0.6 < drawn < 0.602:
                coming.append((event.timestamp, len(coming), encode(event)[: rng.randint(1, 40)]))
                put_in["unreadable"] += 1
            elif 0.7 < drawn < 0.702:
                ahead = msgspec.structs.replace(
                    event, timestamp=event.timestamp + 10 * MINUTE, event_id=f"ahead-{len(coming)}"
                )
                coming.append((event.timestamp, len(coming), ahead))
                put_in["impossible"] += 1
        number += 1
    coming.sort(key=lambda one: one[:2])
    records = []
    for arrives, at, event in coming:
        key = f"broken-{at}".encode() if isinstance(event, bytes) else event.user_id.encode()  # type: ignore[union-attr]
        value = event if isinstance(event, bytes) else encode(event)
        records.append(Sent(partition_of(key, PARTITIONS), arrives, key, value))
    return Load(records, put_in)
