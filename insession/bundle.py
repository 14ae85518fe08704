"""`insession bundle`: a bundle from embeddings somebody already has."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from insession.train import finds, threads_option, warn
from models import bundle as bundle_
from models.errors import UserError


@click.command("bundle")
@click.option(
    "--embeddings",
    required=True,
    type=click.Path(path_type=Path),
    help="Parquet (`listing_id`, and `vector` or a column a dimension), npz (`ids`, `vectors`), or word2vec text.",
)
@click.option(
    "--listings",
    required=True,
    type=click.Path(path_type=Path),
    help="What is known of the listings: parquet, CSV, JSON lines, or a recording of the topic.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The folder of bundles to add to."
)
@threads_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(embeddings: Path, listings: Path, out: Path, threads: int, as_json: bool) -> None:
    """Make a bundle of embeddings you already have, add it to a folder of bundles and make it the current one.

    Embeddings are taken at length one. The ranker is the default one; `insession train` learns one.

    \b
    Example:
      printf '2 3\\nred 1 0 0\\nblue 0 1 0\\n' > vectors.txt
      printf 'listing_id,market\\nred,Lisbon\\nblue,Lisbon\\n' > listings.csv
      insession bundle --embeddings vectors.txt --listings listings.csv --out bundles
    """
    from models.training import embedding_files, listing_files

    ids, vectors = embedding_files.read_embeddings(embeddings)
    known = listing_files.read_listings(listings)
    made, matched = embedding_files.bundle(ids, vectors, known)
    if not matched:
        raise UserError(
            f"none of the {len(ids):,} embeddings in {embeddings} is of one of the {len(known):,} listings in"
            f" {listings}: are these the same ids? Nothing is written"
        )
    path = bundle_.write(out, made, threads=threads, on_raise=warn)
    index = bundle_.read_manifest(path).index
    report = {
        "bundle": path.name,
        "path": str(path),
        "dimensions": vectors.shape[1],
        "embeddings": len(ids),
        "listings": len(known),
        "matched": matched,
        "ranker": made.manifest.training.ranker,
        "index": index,
    }
    if as_json:
        click.echo(msgspec.json.encode(report))
        return
    click.echo(f"{path}")
    click.echo(
        f"  {matched:,} of {len(ids):,} embeddings are of a listing in the listings file;"
        f" {len(known) - matched:,} of its {len(known):,} listings have no embedding"
    )
    click.echo(f"  index {finds(index)}")
