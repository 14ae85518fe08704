"""Whether listings near each other are alike: do a listing's nearest share its market, its type and its price range?

And the mean cosines between listings of each two types, and of each two price ranges, of one market, as Airbnb's
tables 1 and 2 have them (Grbovic and Cheng, "Real-time personalization using embeddings for search ranking at
Airbnb", KDD 2018, section 3.1). For cold listings some that have a vector are held out, and given the one of their
neighbours (models.cold_start): how many get one, how like their own it is, and whether what is near to it is alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.cold_start import ColdStart
from models.evaluation import confidence, lists
from models.listings import NOTHING, Listings

QUERIES = 5_000
"""Of so many listings the neighbours are looked at, drawn where there are more."""
COLD = 0.2
"""The part of these that is held out."""
CELLS = 1 << 24
"""Similarities held in memory at a time."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def kinds(listings: Listings) -> dict[str, tuple[Ints, list[str]]]:
    """What listings can share: by name a code for each listing, NOTHING where it is not known, and the codes' names."""
    types = sorted({kind for kind in listings.columns.type or () if kind is not None})
    code = {kind: at for at, kind in enumerate(types)}
    of_types = [code.get(kind or "", NOTHING) for kind in listings.columns.type or [None] * len(listings)]
    ranges = np.array(listings.ranges, np.int64)
    return {
        "market": (listings.market_codes.astype(np.int64), listings.markets),
        "type": (np.array(of_types, np.int64), types),
        "price_range": (ranges, [str(at) for at in range(int(ranges.max(initial=NOTHING)) + 1)]),
    }


def report(
    bundle: Bundle,
    k: int,
    random: np.random.Generator,
    on_progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """What is found of a bundle's listings. Shares and cosines of what is not known of any are left out."""
    listings = bundle.listings
    vectors = bundle.vectors[: len(listings)]
    warm = np.flatnonzero(vectors.any(axis=1))
    shared = kinds(listings)
    queries = np.sort(random.permutation(warm)[:QUERIES])
    own = nearest(vectors[queries], queries, vectors, warm, k, on_progress)
    return {
        "listings": len(listings),
        "with_vector": len(warm),
        "k": k,
        "n": len(queries),
        "shares": _shares(queries, own, warm, shared, random),
        "cosines": {
            name: cosines(vectors[warm], shared["market"][0][warm], codes[warm], names)
            for name, (codes, names) in shared.items()
            if name != "market" and names
        },
        "cold": _cold(bundle, vectors, queries, shared, k, random),
    }


def nearest(
    queries: Floats,
    themselves: Ints,
    vectors: Floats,
    rows: Ints,
    k: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Ints:
    """The k of `rows` nearest to each of `queries`, [q, d], nearest first, without the listings `themselves`, [q]: [q, k]
    rows, NOTHING where there are no more. All are compared."""
    place = np.full(len(vectors), NOTHING, np.int64)
    place[rows] = np.arange(len(rows))
    found = [np.empty((0, min(k, len(rows))), np.int64)]
    step = max(1, CELLS // max(1, len(rows)))
    for start in range(0, len(queries), step):
        on_progress(start)
        similar = queries[start : start + step] @ vectors[rows].T
        at = place[themselves[start : start + step]]
        there = np.flatnonzero(at >= 0)
        similar[there, at[there]] = -np.inf
        best = lists.best(similar, k)
        found.append(np.where(best >= 0, rows[best], NOTHING))
    return np.concatenate(found)


def _shares(
    queries: Ints,
    near: Ints,
    rows: Ints,
    shared: dict[str, tuple[Ints, list[str]]],
    random: np.random.Generator,
) -> dict[str, Any]:
    """By what is shared: of how many listings it is known, which share of their neighbours has it too, and by chance."""
    made: dict[str, Any] = {}
    for name, (codes, names) in shared.items():
        known = (codes[queries] >= 0) & (near >= 0).any(axis=1)
        if not names or not known.any():
            continue
        of, others = codes[queries[known]], near[known]
        same = ((codes[others] == of[:, None]) & (others >= 0)).sum(axis=1) / (others >= 0).sum(axis=1)
        often = np.bincount(codes[rows][codes[rows] >= 0], minlength=len(names))
        itself = np.isin(queries[known], rows)
        chance = (often[of] - itself) / np.maximum(len(rows) - itself, 1)
        [interval] = confidence.intervals(same[:, None], np.arange(len(same)), random)
        made[name] = {
            "n": len(of),
            "share": float(same.mean()),
            "ci": list(interval),
            "chance": float(chance.mean()),
        }
    return made


def cosines(vectors: Floats, markets: Ints, codes: Ints, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The mean cosine of all pairs of different listings of one market, by the kinds of the two. Kinds without a pair
    are left out. `vectors` [n, d] are of unit length."""
    size = len(names)
    total, pairs = np.zeros((size, size)), np.zeros((size, size))
    for market in np.unique(markets[markets >= 0]).tolist():
        inside = np.flatnonzero((markets == market) & (codes >= 0))
        sums = np.zeros((size, vectors.shape[1]))
        np.add.at(sums, codes[inside], vectors[inside].astype(np.float64))
        counts = np.bincount(codes[inside], minlength=size)
        total += sums @ sums.T - np.diag(counts)
        pairs += np.outer(counts, counts) - np.diag(counts)
    return {
        one: {other: float(total[at, to] / pairs[at, to]) for to, other in enumerate(names) if pairs[at, to]}
        for at, one in enumerate(names)
        if pairs[at].any()
    }


def _cold(
    bundle: Bundle,
    vectors: Floats,
    queries: Ints,
    shared: dict[str, tuple[Ints, list[str]]],
    k: int,
    random: np.random.Generator,
) -> dict[str, Any]:
    """Of the bundle's own cold listings how many have neighbours to take a vector of; and of some held out, what these
    vectors are worth. `cosine` is that with the vector they had, `chance` that of two listings drawn at random."""
    listings = bundle.listings
    without = np.flatnonzero(~vectors.any(axis=1))
    reached = sum(bundle.cold_start.vector(listings.get(row)) is not None for row in without.tolist())
    held = np.sort(random.permutation(queries)[: int(len(queries) * COLD)])
    kept = vectors.copy()
    kept[held] = 0
    cold_start = ColdStart(listings, kept)
    given = {row: cold_start.vector(listings.get(row)) for row in held.tolist()}
    got = [row for row, vector in given.items() if vector is not None]
    made: dict[str, Any] = {
        "without_vector": len(without),
        "reached": reached,
        "held_out": len(held),
        "held_out_reached": len(got),
        "cosine": None,
        "ci": None,
        "chance": None,
        "shares": {},
    }
    if got:
        rows = np.array(got, np.int64)
        theirs = np.array([given[row] for row in got], np.float32)
        like = (theirs * vectors[rows]).sum(axis=1).astype(np.float64)
        warm = np.flatnonzero(kept.any(axis=1))
        one, other = random.choice(queries, (2, QUERIES))
        different = one != other
        made["cosine"] = float(like.mean())
        made["ci"] = list(confidence.intervals(like[:, None], np.arange(len(like)), random)[0])
        drawn = (vectors[one] * vectors[other]).sum(axis=1)[different]
        made["chance"] = float(drawn.mean()) if len(drawn) else None
        made["shares"] = _shares(rows, nearest(theirs, rows, kept, warm, k), warm, shared, random)
    return made
