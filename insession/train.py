"""`insession train`: a bundle from a recording."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path
from typing import Any

import click
import msgspec

from insession import tracking
from insession.progress import Stages
from insession.times import Time, text
from models import bundle as bundle_
from models.errors import UserError
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
    "--method",
    default="session-encoder",
    show_default=True,
    help="How to learn the vectors; docs/methods.md has them all.",
)
@click.option(
    "--settings",
    "settings_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The method's settings, as TOML: a line `name = value` for each.",
)
@click.option(
    "--set",
    "given",
    metavar="NAME=VALUE",
    multiple=True,
    help="One of the method's settings; goes before those of the file. May be given several times.",
)
@click.option("--epochs", type=click.IntRange(1), help="The same as --set epochs=N.")
@click.option("--dimensions", type=click.IntRange(2, 1024), help="The same as --set dimensions=N.")
@click.option(
    "--validation",
    type=click.FloatRange(0, 0.5),
    default=0.0,
    show_default=True,
    help="Hold out this part of the sessions, the last ones, to see after each epoch how good the vectors are.",
)
@click.option(
    "--patience",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Stop after so many epochs without a better validation, and take the best; 0: go on to the end.",
)
@click.option(
    "--checkpoints",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Keep the state of the training there after each epoch; the same command goes on from it.",
)
@click.option(
    "--warm-start",
    metavar="BUNDLE",
    type=click.Path(path_type=Path),
    help="Start from the vectors that this bundle has of the same listings, instead of random ones.",
)
@click.option(
    "--no-ranker",
    is_flag=True,
    help="Learn no ranker: the vectors are fitted to all of the recording, and the ranker is the default one.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where the vectors are learned.",
)
@tracking.option("the run and the bundle")
@click.option(
    "--register",
    metavar="NAME@ALIAS",
    help="With --mlflow: register the bundle there under this name, and give the version this alias.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    recording: Path,
    out: Path,
    listings: Path | None,
    until: int | None,
    seed: int,
    threads: int,
    method: str,
    settings_file: Path | None,
    given: tuple[str, ...],
    epochs: int | None,
    dimensions: int | None,
    validation: float,
    patience: int,
    checkpoints: Path | None,
    warm_start: Path | None,
    no_ranker: bool,
    device: str,
    mlflow: str | None,
    register: str | None,
    as_json: bool,
) -> None:
    """Learn a bundle from RECORDING, add it to a folder of bundles and make it the current one.

    Vectors come from the sessions. The ranker comes from searches whose choice is known, where there are enough;
    else it is the default one. A listing that was not acted on near another has the vector of what is known of it or
    of its neighbours; without these it has none, and is ranked by all that is known of it but similarity.

    \b
    Example:
      insession import marketplace --visits 300 --out sim.jsonl.zst
      insession train sim.jsonl.zst --listings sim.listings.jsonl --out bundles
    """
    from models.training import listing_files, methods, pipeline

    if method not in methods.METHODS:
        raise UserError(f"--method {method}: there are {', '.join(methods.METHODS)}")
    if register and not mlflow:
        raise UserError("--register goes with --mlflow: it names the bundle in the registry there")
    named = tracking.to_register(register) if register else None
    registry = tracking.Registry(mlflow) if mlflow else None
    if patience and not validation:
        raise UserError("--patience goes with --validation: it looks at what is held out")
    if device == "cuda" and not pipeline.has_cuda():
        raise UserError("--device cuda: this machine has none that torch can use; take cpu")
    flags = {"epochs": epochs, "dimensions": dimensions}
    values = (_read(settings_file) if settings_file else {}) | dict(map(_pair, given))
    settings = methods.configured(
        method, values | {name: value for name, value in flags.items() if value is not None}
    )
    bundle_.check_folder(out)
    if registry is not None:
        registry.check()
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
            method=method,
            settings=settings,
            validation=validation,
            patience=patience,
            device=device,
            checkpoints=checkpoints,
            warm_start=warm_start,
            learn_ranker=not no_ranker,
            on_progress=stage.update,
        )
    finally:
        stage.close()
    path = bundle_.write(out, made, threads=threads, on_raise=warn)
    manifest = bundle_.read_manifest(path)
    index = manifest.index
    facts = made.manifest.training
    seconds = round(time.perf_counter() - started, 3)
    report = {
        "bundle": path.name,
        "path": str(path),
        "listings": len(made.listings),
        "listings_with_vector": facts.metrics["listings_with_vector"],
        "cold": facts.metrics["cold"],
        "cold_with_vector": facts.metrics["cold_with_vector"],
        "method": method,
        "settings": facts.settings,
        "dimensions": made.manifest.dimensions,
        "curve": facts.curve,
        "events": facts.metrics["events"],
        "sessions": facts.metrics["sessions"],
        "ranker": facts.ranker,
        "searches": facts.metrics["searches"],
        "embeddings_until": facts.embeddings_until,
        "trained_until": facts.trained_until,
        "index": index,
        "seconds": seconds,
    }
    if registry is not None:
        report["mlflow_run"] = registry.log(path, manifest, seconds, named)
    if as_json:
        click.echo(msgspec.json.encode(report))
        return
    click.echo(f"{path}: {seconds:.1f} s")
    if facts.curve:
        last = facts.curve[-1]
        held = max((each.validation for each in facts.curve if each.validation is not None), default=None)
        says = "" if held is None else f", MRR@20 on what was held out at best {held:.3f}"
        click.echo(f"  {method}, {len(facts.curve)} epochs, loss {last.loss:.3f}{says}")
    click.echo(
        f"  vectors   {report['listings_with_vector']:,} of {len(made.listings):,} listings,"
        f" from {report['sessions']:,} sessions before {text(facts.embeddings_until or 0)}"
    )
    if report["cold"]:
        click.echo(
            f"  cold      {report['cold_with_vector']:,} of {report['cold']:,} that nobody acted on have one"
        )
    learned = f"learned from {report['searches']:,} searches"
    few = f"fewer than {pipeline.FEWEST} searches in a session with a known choice"
    default = f"the default: {'--no-ranker' if no_ranker else few}"
    click.echo(f"  ranker    {learned if facts.ranker == 'learned' else default}")
    click.echo(f"  index     {finds(index)}")


def _read(path: Path) -> dict[str, Any]:
    """The settings of a TOML file."""
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML: {error}") from None
    for name, value in values.items():
        if not isinstance(value, bool | int | float | str):
            raise UserError(f"{path}: `{name}` must be a number, a text, or true or false")
    return values


def _pair(text: str) -> tuple[str, str]:
    """A setting that is given as NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError(f"--set {text}: give NAME=VALUE, as in --set window=3")
    return name.strip(), value.strip()


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
