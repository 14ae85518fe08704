"""A million users in a sidecar's store, as it would have them from the topics: nothing is left to read.

Each has 8 events in the open session and 20 in the history, after one of some thousands of patterns.
INSESSION_BENCH_USERS makes them fewer.
"""

from __future__ import annotations

import os
import random
from contextlib import closing
from pathlib import Path

import msgspec

from insession.progress import Progress
from models.history import Deed, Done, History, Visit
from models.listings import Listing
from models.sessions import Action, Kept, Kind, Left, Session, Shown, State, UserEmbedding
from models.states import Checkpoint, history_key, user_key
from models.store import Store
from models.topics import Topics
from serving.standing import Place, Standing, placed, stands
from streams import topics
from streams.topics import Client, cluster_id
from tests.benchmarks.catalogue import Catalogue

USERS = int(os.environ.get("INSESSION_BENCH_USERS", 1_000_000))
PATTERNS, BATCH = 2_000, 5_000
HOUR = 3_600_000
KINDS: tuple[Kind, ...] = ("click", "click", "click", "click", "wishlist", "inquiry")
DEEDS: tuple[Deed, ...] = ("click", "long-click", "skip", "wishlist", "inquiry", "booking")
NOBODY = b"NOBODY"

Records = tuple[bytes, bytes]
"""Of `user-embeddings` and of `user-histories`."""


def user_id(number: int) -> str:
    return f"visitor-{number:07}"


def patterns(made: Catalogue, now: int) -> list[Records]:
    """Records of users named NOBODY, who did something a minute before `now`."""
    rng = random.Random(1)
    markets = rng.choices(list(made.markets), k=PATTERNS)
    return [_pattern(made, now, rng, market, made.markets[market]) for market in markets]


def records(patterns: list[Records], number: int, version: int = 0) -> Records:
    """Those of a user."""
    name = user_id(number).encode()
    embedding, history = patterns[(number * 7 + version * 613) % len(patterns)]
    return embedding.replace(NOBODY, name), history.replace(NOBODY, name)


def _pattern(made: Catalogue, now: int, rng: random.Random, market: str, among: list[Listing]) -> Records:
    start = now - 4 * 60_000
    shown = [listing.listing_id for listing in rng.sample(among, 10)]
    search = f"s-{rng.getrandbits(48):012x}"
    events: list[Kept] = [Shown(start, f"e-{search}", search, market, tuple(shown))]
    for at, kind in enumerate(KINDS, 1):
        name = f"{rng.getrandbits(48):012x}-{at}"
        events.append(Action(start + at * 25_000, name, kind, rng.choice(shown), market, search))
    opened = events[3]
    assert isinstance(opened, Action)
    events.append(Left(start + 7 * 25_000, f"{rng.getrandbits(48):012x}", opened.event_id, 75.0))
    session = Session(start, tuple(events))
    embedding = UserEmbedding(
        user_id=NOBODY.decode(),
        vector=made.bundle.encode(session),
        bundle=made.bundle.name,
        as_of=session.last,
        partition=0,
        offset=0,
        state=State(sessions=(session,), last=session.last),
    )
    visits = []
    for days in (5, 1):
        first = start - days * 24 * HOUR
        done = tuple(
            Done(rng.choice(DEEDS), rng.choice(among).listing_id, first + at * 30_000, market)
            for at in range(10)
        )
        visits.append(Visit(first, done[-1].timestamp, done))
    history = History(user_id=NOBODY.decode(), visits=tuple(visits))
    return msgspec.json.encode(embedding), msgspec.json.encode(history)


def fill(
    folder: Path, client: Client, names: Topics, patterns: list[Records], users: int, now: int, bundle: str
) -> None:
    """Make the store in `folder`: the users of the topics of `names`, of which nothing was read yet, with vectors of `bundle`."""
    found = topics.require(client, names)
    followed = (names.user_embeddings, names.user_histories, names.listings)
    ids = {name: found[name].id for name in (names.clicks, *names.outputs, names.listings)}
    cluster, partitions = cluster_id(client), found[names.user_embeddings].partitions
    with closing(Store(folder)) as store, Progress("filling the store", users, "users") as progress:
        changes: dict[bytes, bytes | None] = {}
        for number in range(users):
            name = user_id(number).encode()
            embedding, history = records(patterns, number)
            changes[user_key(name)], changes[history_key(name)] = embedding, history
            if len(changes) >= BATCH or number == users - 1:
                store.write(changes)
                changes.clear()
                progress.update(number)
        standing = Standing(
            cluster=cluster,
            topics={name: ids[name] for name in followed},
            seen=now,
            partitions=partitions,
            held=None,
            users=users,
            vectors=frozenset((bundle,)),
        )
        store.write(stands(standing))
        checkpoint = Checkpoint(next_offset=0, watermark=now, cluster=cluster, topics=ids)
        for number in range(partitions):
            place = (names.user_embeddings, number)
            store.write(placed({place: Place(checkpoint=checkpoint)}))
        store.flush()
