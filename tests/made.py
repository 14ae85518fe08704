"""Bundles, sessions and recordings made for tests."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from models import bundle, listings, ranker
from models.bundle import Bundle, Floats, Training
from models.events import Event, Tick, encode
from models.history import Deed, Done, History, Visit
from models.listings import Listing
from models.recording import Header, Record, Writer, partition_of
from models.sessions import Action, Kept, Kind, Session, Shown, State, UserEmbedding
from models.training.corpus import Collector, Corpus

START = 1_700_000_000_000
MINUTE = 60_000


def unit(size: int, dimensions: int, seed: int = 0) -> Floats:
    """Random vectors of length one."""
    vectors = np.random.default_rng(seed).normal(size=(size, dimensions)).astype(np.float32)
    lengths: Floats = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / lengths).astype(np.float32)


def a_bundle(
    size: int = 50,
    dimensions: int = 8,
    *,
    vectors: Floats | None = None,
    markets: Iterable[str | None] | None = None,
    learned: ranker.Ranker | None = None,
) -> Bundle:
    """A bundle, in memory, of the listings `l0`, `l1`, ..."""
    if vectors is None:
        vectors = unit(size, dimensions)
    named = list(markets) if markets is not None else [None] * len(vectors)
    known = [Listing(listing_id=f"l{row}", market=market) for row, market in enumerate(named)]
    return bundle.assemble(
        listings=listings.collect(known),
        vectors=vectors,
        ranker=learned or ranker.default(),
        training=Training(source="embeddings", data="made"),
    )


def a_corpus(
    sessions: Iterable[Iterable[int]], known: Iterable[Listing] = (), *, seconds: float = math.nan
) -> Corpus:
    """Clicks, a minute apart, on the listings `l0`, `l1`, ..., of which some more may be `known`; session k is user k's."""
    visits = [list(session) for session in sessions]
    rows = {f"l{row}": Listing(listing_id=f"l{row}") for row in range(1 + max(map(max, visits)))}
    rows |= {listing.listing_id: listing for listing in known}
    collector = Collector()
    for user, session in enumerate(visits):
        collector.add(user, [(row, 0, seconds, START + at * MINUTE) for at, row in enumerate(session)])
    return collector.corpus(listings.collect(rows.values()))


def act(
    at: int,
    listing_id: str,
    kind: Kind = "click",
    *,
    event_id: str | None = None,
    search_id: str | None = None,
) -> Action:
    """An action `at` seconds after START."""
    return Action(START + at * 1000, event_id or f"e{at:04d}", kind, listing_id, None, search_id)


def show(at: int, *results: str) -> Shown:
    """A search `at` seconds after START."""
    return Shown(START + at * 1000, f"e{at:04d}", f"s{at}", None, results)


def visit(*events: Kept) -> Session:
    return Session(events[0].timestamp, events)


def past(*deeds: tuple[Deed, str, str | None], before: int = 60) -> History:
    """A history of one visit, so many minutes ago."""
    when = START - before * MINUTE
    done = tuple(Done(kind, listing, when + at, market) for at, (kind, listing, market) in enumerate(deeds))
    return History(user_id="u", visits=(Visit(when, when + len(deeds), done),))


def user_in(made: Bundle, *events: Kept) -> UserEmbedding:
    """A user whose open session has these events."""
    session = visit(*events)
    return UserEmbedding(
        user_id="u",
        vector=made.encode(session),
        bundle=made.name,
        as_of=session.last,
        partition=0,
        offset=0,
        state=State(sessions=(session,), last=session.last),
    )


def record(path: Path, events: Iterable[Event], partitions: int = 2) -> Path:
    """A recording of the events, in the order given."""
    with Writer(path, Header(topic="clicks", partitions=partitions)) as writer:
        for event in events:
            key = None if isinstance(event, Tick) else event.user_id.encode()
            number = 0 if key is None else partition_of(key, partitions)
            writer.write(Record(number, None, event.timestamp, key, (), encode(event)))
    return path
