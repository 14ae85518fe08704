"""A bundle for the benchmarks of the sidecar: a large simulated marketplace, and a ranker learned on the searches of a small one."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

import msgspec

from insession.processes import COMMAND
from models import bundle, listings
from models.bundle import Bundle, Training
from models.datasets.marketplace import Marketplace
from models.listings import Listing
from tests.benchmarks.wrk import Lists
from tests.made import unit

LISTINGS, DIMENSIONS, VISITS = 20_000, 32, 5_000
LISTS = 500


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The bundle, where it is, and its listings by market."""

    bundle: Bundle
    folder: Path
    markets: dict[str, list[Listing]]


def catalogue(folder: Path) -> Catalogue:
    """Trains and writes it, in a minute."""
    recording, learned = folder / "small.jsonl.zst", folder / "learned"
    for arguments in (
        ("import", "marketplace", "--visits", str(VISITS), "--out", str(recording)),
        ("train", str(recording), "--listings", str(folder / "small.listings.jsonl"), "--out", str(learned)),
    ):
        subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
    ranker = bundle.load(learned)
    assert ranker.manifest.training.ranker == "learned"
    known = Marketplace(2, listings=LISTINGS).listings
    made = bundle.assemble(
        listings=listings.collect(known),
        vectors=unit(LISTINGS, DIMENSIONS),
        ranker=ranker.ranker,
        types=ranker.types,
        training=Training(source="embeddings", data="marketplace", ranker="learned"),
    )
    bundle.write(folder / "bundles", made)
    markets: dict[str, list[Listing]] = {}
    for listing in known:
        markets.setdefault(listing.market or "", []).append(listing)
    return Catalogue(bundle.load(folder / "bundles"), folder / "bundles", markets)


def lists(made: Catalogue, path: Path, *, candidates: int, users: int, timestamp: int) -> Lists:
    """Lists of candidates with a score and a price, each of one market, as the ends of the bodies of rank requests."""
    rng = random.Random(candidates)
    large = [found for found in made.markets.values() if len(found) >= candidates]
    with path.open("wb") as file:
        for _ in range(LISTS):
            chosen = rng.sample(rng.choice(large), candidates)
            wanted = [
                {"listing_id": listing.listing_id, "score": round(rng.gauss(0, 1), 3), "price": listing.price}
                for listing in chosen
            ]
            body = msgspec.json.encode({"timestamp": timestamp, "candidates": wanted})
            file.write(body[1:] + b"\n")
    return Lists(path=path, users=users)
