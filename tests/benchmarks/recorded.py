"""A recorded stream for the benchmarks of the worker: visits of the simulated marketplace, and a bundle of its listings."""

from __future__ import annotations

from pathlib import Path

from models import bundle, listings, ranker
from models.bundle import Training
from models.datasets import importing
from models.datasets.marketplace import Marketplace
from models.recording import Header, Writer
from tests.made import unit

PARTITIONS = 4


def marketplace(folder: Path, visits: int, seed: int = 1) -> tuple[Path, Path, int]:
    """A recording of so many visits and a folder of bundles, of random vectors, both in `folder`; how many events they are."""
    made = Marketplace(seed)
    path = folder / "recorded.jsonl.zst"
    with Writer(path, Header(topic="clicks", partitions=PARTITIONS, source="marketplace")) as writer:
        entries = ((event, None) for event in made.events(visits))
        for record in importing.records(entries, PARTITIONS, importing.Summary()):
            writer.write(record)
    known = listings.collect(made.listings)
    some = bundle.assemble(
        listings=known,
        vectors=unit(len(known), 32),
        ranker=ranker.default(),
        training=Training(source="embeddings", data="random"),
    )
    bundle.write(folder / "bundles", some)
    return path, folder / "bundles", writer.records
