"""A recording -> sessions and searches -> vectors and a ranker -> a bundle.

Where searches with choices were recorded, learning is split at the time when 70 % of the searches are past. The vectors
are fitted to what is before it; what similarity is worth the ranker learns on the searches after it, of which the
vectors know nothing. (Learned on searches that its vectors had seen, it would trust similarity too much.) What the
other features are worth it learns on the searches before as well, for which similarity is left out. Elsewhere the
vectors are fitted to everything, and the ranker is the default one.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from os import PathLike

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from models import bundle as bundle_
from models import listings as listings_
from models import rank, ranker, types
from models.bundle import Bundle, Training
from models.errors import UserError
from models.evaluation.rerank import Choice, choices, records
from models.events import Booking, Click, Forget, Inquiry, Search, Wishlist
from models.listings import Listing
from models.sessions import WINDOWS
from models.training import ranking, skip_gram
from models.training.pairs import Corpus
from models.training.ranking import Example, Ranking
from models.training.skip_gram import SkipGram
from models.types import Types, listing_type, user_type

EARLIER = 0.7
"""The part of the searches that are before the time at which learning is split."""
FEWEST = 50
"""A ranker is learned from at least so many searches,"""
MOST = 10_000
"""and from the newest so many."""

Progress = Callable[[str, int, int, str], None]
"""What is being done, how much of it is done, of how much, and a note."""

Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class Gathered:
    """What a recording says, in the order of its records."""

    users: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    booked: list[bool] = field(default_factory=list)
    user_codes: dict[str, int] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    """Listings acted on; codes of listings and users sort as their ids do, whatever comes first."""
    forgotten: dict[str, int] = field(default_factory=dict)
    """The newest `forget` of each user who asked for one: nothing dated up to it is learned from."""
    markets: dict[str, Counter[str]] = field(default_factory=dict)
    prices: dict[str, float] = field(default_factory=dict)
    searches: list[int] = field(default_factory=list)
    """The searches' timestamps."""
    records: int = 0
    newest: int = 0
    fingerprint: str = ""

    @property
    def since(self) -> list[int]:
        """By user: nothing dated up to then is learned from."""
        return [self.forgotten.get(name, -1) for name in self.user_codes]


def gather(
    path: str | PathLike[str],
    until: int | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Gathered:
    """What the recording at `path` says of the time before `until` (ms). Raises UserError where it says nothing."""
    found = Gathered()
    content = hashlib.sha256()
    for place, (_, record, event) in enumerate(records(path)):
        if place % 1_000 == 0:
            on_progress(place)
        if event is None or (until is not None and event.timestamp >= until):
            continue
        content.update(f"{record.timestamp}:{len(record.value or b'')}:".encode() + (record.value or b""))
        found.records += 1
        found.newest = max(found.newest, event.timestamp)
        match event:
            case Search():
                found.searches.append(event.timestamp)
                for result in event.results:
                    market = found.markets.setdefault(result.listing_id, Counter())
                    if event.market is not None:
                        market[event.market] += 1
                    if result.price is not None:
                        found.prices[result.listing_id] = result.price
            case Click() | Wishlist() | Inquiry() | Booking():
                user = found.user_codes.setdefault(event.user_id, len(found.user_codes))
                found.users.append(user)
                found.times.append(event.timestamp)
                found.booked.append(isinstance(event, Booking))
                found.items.append(found.codes.setdefault(event.listing_id, len(found.codes)))
                market = found.markets.setdefault(event.listing_id, Counter())
                if event.market is not None:
                    market[event.market] += 1
            case Forget():
                found.forgotten[event.user_id] = max(event.timestamp, found.forgotten.get(event.user_id, 0))
    if not found.items:
        when = "" if until is None else " before the time given with --until"
        raise UserError(f"{path}: no clicks, wishlists, inquiries or bookings{when}: nothing to learn from")
    found.fingerprint = content.hexdigest()
    found.users, found.user_codes = _by_id(found.users, found.user_codes)
    found.items, found.codes = _by_id(found.items, found.codes)
    return found


def _by_id(column: list[int], codes: dict[str, int]) -> tuple[list[int], dict[str, int]]:
    """The column and its codes with the codes in the order of the ids."""
    again = {name: code for code, name in enumerate(sorted(codes))}
    moved = [again[name] for name in codes]
    return [moved[code] for code in column], again


def catalogue(found: Gathered, known: Iterable[Listing]) -> listings_.Listings:
    """Every listing that is known or was shown or acted on, by id. What a listing's own record does not say comes
    from the events: its most frequent market and its newest price."""
    rows = {listing.listing_id: listing for listing in known}
    for listing_id, named in found.markets.items():
        listing = rows.get(listing_id) or Listing(listing_id=listing_id)
        market, price = listing.market, listing.price
        if market is None and named:
            market = min(named, key=lambda name: (-named[name], name))
        if price is None:
            price = found.prices.get(listing_id)
        rows[listing_id] = msgspec.structs.replace(listing, market=market, price=price)
    return listings_.collect(rows[listing_id] for listing_id in sorted(rows))


def sessions(found: Gathered, before: int | None = None, gap: int = WINDOWS.gap) -> tuple[Ints, Ints]:
    """The listings acted on before the time `before`, session after session, and the session of each.

    Sorting by time and splitting at the gaps gives what the windows give. What users asked to be forgotten is left
    out, and a listing acted on several times in a row stands once. Sessions of one listing are left out: they say
    nothing of what is near to what.
    """
    users, times, items = (np.array(column, np.int64) for column in (found.users, found.times, found.items))
    since = np.array(found.since, np.int64)
    kept = times > since[users]
    if before is not None:
        kept &= times < before
    users, times, items = users[kept], times[kept], items[kept]
    order = np.lexsort((times, users))
    users, times, items = users[order], times[order], items[order]
    starts = np.ones(len(users), np.bool_)
    starts[1:] = (users[1:] != users[:-1]) | (times[1:] - times[:-1] > gap)
    session = np.cumsum(starts) - 1
    kept = starts.copy()
    kept[1:] |= items[1:] != items[:-1]
    items, session = items[kept], session[kept]
    kept = np.bincount(session)[session] > 1 if len(session) else kept
    items, session = items[kept], session[kept]
    return items, np.unique(session, return_inverse=True)[1]


def train(
    path: str | PathLike[str],
    *,
    known: Iterable[Listing] = (),
    until: int | None = None,
    seed: int = 1,
    threads: int = 1,
    embedding: SkipGram | None = None,
    ranked: Ranking | None = None,
    on_progress: Progress = lambda title, done, total, note: None,
) -> Bundle:
    """A bundle, in memory, from the recording at `path` and what is `known` of listings.

    The same arguments give the same bundle on one machine, where `threads` is 1. Raises UserError where the
    recording can't be read or holds nothing to learn from.
    """
    torch.set_num_threads(threads)
    embedding, ranked = embedding or SkipGram(), ranked or Ranking()
    random = np.random.default_rng(seed)
    found = gather(path, until, lambda done: on_progress("reading", done, 0, ""))
    split = _split(found.searches)
    searches = _remembered(path, until, found, on_progress) if split is not None else []
    if sum(choice.search.timestamp >= (split or 0) for choice in searches) < FEWEST:
        split = None
    items, session = sessions(found, split)
    if not len(items):
        raise UserError(f"{path}: no session acts on two different listings: there is nothing to learn from")
    listings = catalogue(found, known)
    vectors = np.zeros((len(listings), embedding.dimensions), np.float32)
    distinct, tokens = np.unique(items, return_inverse=True)
    names = list(found.codes)
    vectors[[listings.row[names[item]] for item in distinct.tolist()]] = skip_gram.train(
        Corpus(
            tokens.astype(np.int32), np.append(np.unique(session, return_index=True)[1], len(session)), len(distinct)
        ),
        embedding,
        random,
        threads=threads,
        on_progress=lambda done, total, note: on_progress("learning vectors", done, total, note),
    )
    training = Training(
        source="recording",
        data=found.fingerprint,
        seed=seed,
        settings=asdict(embedding) | asdict(ranked),
        embeddings_until=found.newest + 1 if split is None else split,
        trained_until=found.newest,
        metrics={
            "events": found.records,
            "sessions": int(session[-1]) + 1,
            "listings_with_vector": len(distinct),
            "searches": 0,
        },
    )
    of_types = _types(found, listings, found.newest + 1 if split is None else split)
    bundle = bundle_.assemble(
        listings=listings, vectors=vectors, ranker=ranker.default(), training=training, types=of_types
    )
    examples = [example for choice in searches if (example := _example(choice, bundle)) is not None]
    if split is None or len(examples) < FEWEST:
        return bundle
    learned = ranking.train(
        examples,
        ranked,
        lambda done, total, note: on_progress("learning the ranker", done, total, note),
    )
    training = msgspec.structs.replace(
        training, ranker="learned", metrics=training.metrics | {"searches": len(examples)}
    )
    return bundle_.assemble(
        listings=listings, vectors=vectors, ranker=learned, training=training, types=of_types
    )


def _split(searches: list[int]) -> int | None:
    """The time that parts what vectors are fitted to from what the ranker learns on."""
    if not searches:
        return None
    return sorted(searches)[int(EARLIER * len(searches))]


def _types(found: Gathered, listings: listings_.Listings, before: int) -> Types:
    """What types of users act on what types of listings, before the time `before`; a user's type is that of the two
    weeks before each action."""
    kinds = listings.columns.type or [None] * len(listings)
    names = [listing_type(*pair) for pair in zip(kinds, listings.ranges, strict=True)]
    rows = [listings.row[name] for name in found.codes]
    counts: Counter[tuple[str, str]] = Counter()
    since = found.since
    user, last, actions, in_range, priced, booked = -1, 0, 0, 0, 0, False
    for at in np.lexsort((found.times, found.users)).tolist():
        time = found.times[at]
        if time >= before or time <= since[found.users[at]]:
            continue
        if found.users[at] != user or time > last + WINDOWS.history:
            user, actions, in_range, priced, booked = found.users[at], 0, 0, 0, False
        row = rows[found.items[at]]
        if actions:
            counts[user_type(actions, in_range, priced, booked), names[row]] += 1
        last, actions, booked = time, actions + 1, booked or found.booked[at]
        if listings.ranges[row] >= 0:
            in_range, priced = in_range + listings.ranges[row], priced + 1
    return types.learn(counts)


def _remembered(
    path: str | PathLike[str], until: int | None, gathered: Gathered, on_progress: Progress
) -> list[Choice]:
    """The newest choices of users of whom anything is known, and not to be forgotten."""
    found = choices(
        path,
        None,
        until=until,
        on_progress=lambda done: on_progress("gathering searches", done, gathered.records, ""),
    )
    remembered = (
        choice
        for choice in found
        if choice.visitor is not None
        and choice.visitor.deeds(choice.search.timestamp)
        and choice.search.timestamp > gathered.forgotten.get(choice.search.user_id, -1)
    )
    return list(deque(remembered, MOST))


def _example(choice: Choice, bundle: Bundle) -> Example | None:
    """The features of the choice's known candidates, without similarity where the vectors were fitted to its time;
    None where the chosen listing or all others are unknown, or nothing is known of the visitor."""
    visitor, time = choice.visitor, choice.search.timestamp
    assert visitor is not None
    candidates = rank.look_up(choice.candidates, bundle)
    known = np.flatnonzero(candidates.rows >= 0)
    if choice.chosen not in known or len(known) < 2:
        return None
    vector = bundle.encode(visitor.session(time))
    user = msgspec.structs.replace(visitor.embedding, vector=vector, bundle=bundle.name)
    similar = time >= (bundle.manifest.training.embeddings_until or 0)
    seen = rank.of(bundle, visitor.replaced(user), time, similar=similar)
    if seen is None:
        return None
    values = rank.matrix(bundle, seen, candidates)
    return Example(values, known.tolist().index(choice.chosen))
