"""`insession train`: a bundle from a recording."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec

from insession.progress import Stages
from insession.times import Time, text
from models import bundle as bundle_
from models.index import Measured

threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="With one, the same input and seed give the same bundle.",
)


@click.command("train")
@click.argument("recording", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The folder of bundles to add to."
)
@click.option(
    "--listings",
    type=click.Path(path_type=Path),
    help="What is known of the listings: parquet, CSV, JSON lines, or a recording of the topic.",
)
@click.option(
    "--until", type=Time(), help="Learn only from what is before: an ISO date or time (UTC), or milliseconds."
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of all that is random.")
@threads_option
@click.option(
    "--epochs",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Times the vectors see each session.",
)
@click.option(
    "--dimensions", type=click.IntRange(2, 1024), default=32, show_default=True, help="Of the vectors."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    recording: Path,
    out: Path,
    listings: Path | None,
    until: int | None,
    seed: int,
    threads: int,
    epochs: int,
    dimensions: int,
    as_json: bool,
) -> None:
    """Learn a bundle from RECORDING, add it to a folder of bundles and make it the current one.

    Vectors come from the sessions. The ranker comes from searches whose choice is known, where there are enough;
    else it is the default one. A listing that was not acted on near another has no vector: it is ranked by all
    that is known of it but similarity.

    \b
    Example:
      insession import marketplace --visits 300 --out sim.jsonl.zst
      insession train sim.jsonl.zst --listings sim.listings.jsonl --out bundles
    """
    from models.training import listing_files, pipeline
    from models.training.skip_gram import SkipGram

    started = time.perf_counter()
    stage = Stages()
    known = listing_files.read_listings(listings) if listings else []
    try:
        made = pipeline.train(
            recording,
            known=known,
            until=until,
            seed=seed,
            threads=threads,
            embedding=SkipGram(dimensions=dimensions, epochs=epochs),
            on_progress=stage.update,
        )
    finally:
        stage.close()
    path = bundle_.write(out, made, threads=threads, on_raise=warn)
    index = bundle_.read_manifest(path).index
    facts = made.manifest.training
    report = {
        "bundle": path.name,
        "path": str(path),
        "listings": len(made.listings),
        "listings_with_vector": facts.metrics["listings_with_vector"],
        "dimensions": dimensions,
        "events": facts.metrics["events"],
        "sessions": facts.metrics["sessions"],
        "ranker": facts.ranker,
        "searches": facts.metrics["searches"],
        "embeddings_until": facts.embeddings_until,
        "trained_until": facts.trained_until,
        "index": index,
        "seconds": round(time.perf_counter() - started, 3),
    }
    if as_json:
        click.echo(msgspec.json.encode(report))
        return
    click.echo(f"{path}: {report['seconds']:.1f} s")
    click.echo(
        f"  vectors   {report['listings_with_vector']:,} of {len(made.listings):,} listings,"
        f" from {report['sessions']:,} sessions before {text(facts.embeddings_until or 0)}"
    )
    learned = f"learned from {report['searches']:,} searches"
    default = f"the default: fewer than {pipeline.FEWEST} searches in a session with a known choice"
    click.echo(f"  ranker    {learned if facts.ranker == 'learned' else default}")
    click.echo(f"  index     {finds(index)}")


def warn(line: str) -> None:
    """Tell of an index that finds too little, beside what a command prints."""
    click.echo(line, err=True)


def finds(index: Measured | None) -> str:
    """How much an index was measured to find, in a line."""
    if index is None or not index.queries:
        return "none: so few listings are compared one by one"
    worst = min(index.markets.items(), key=lambda market: market[1].recall_at_100, default=None)
    where = f"; the worst market, {worst[0]}, {worst[1].recall_at_100:.3f}" if worst else ""
    return f"finds {index.recall_at_100:.3f} of the 100 nearest (ef {index.ef:,}){where}"
