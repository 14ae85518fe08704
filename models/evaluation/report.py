"""A report: one page of HTML with tables and charts that needs nothing else, to be kept and passed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup

from models.bundle import Bundle
from models.errors import UserError
from models.evaluation import charts, projection

TEMPLATE = Path(__file__).with_name("report.html")


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its first column names the row; `own` rows stand out."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    own: Sequence[str] = ()
    shades: Sequence[Sequence[float]] = ()
    """How dark each cell behind a row's name is, 0 to 1; nothing: none is."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, as charts.py draws them."""

    title: str
    svg: str
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What a page shows, from the top on."""

    title: str
    says: str
    """What was measured and how, in a sentence or two."""
    warnings: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    bundles: Mapping[str, Bundle] = field(default_factory=dict)
    """Of each its settings, its learning curve and a map of its embeddings."""
    seed: int = 1
    """Which listings are on the map, where they are many."""


def write(path: Path, report: Report) -> None:
    """Write the page. Raises UserError where the file can't be written."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(
        report=report,
        charts=[_drawn(chart) for chart in report.charts],
        bundles=[_bundle(name, bundle, report.seed) for name, bundle in report.bundles.items()],
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--report {path}: {error.strerror or error}") from None


def _bundle(name: str, bundle: Bundle, seed: int) -> dict[str, object]:
    """What the page says of a bundle."""
    training = bundle.manifest.training
    facts = {"bundle": bundle.name} if bundle.name else {}
    facts |= {
        "method": training.method or training.source,
        "listings": f"{len(bundle.listings):,}",
        "dimensions": str(bundle.manifest.dimensions),
        "ranker": training.ranker,
        "data": training.data[:16],
        "seed": str(training.seed),
    } | {key.replace("_", " "): str(value) for key, value in training.settings.items()}
    return {
        "name": name,
        "facts": facts,
        "curves": [_drawn(chart) for chart in _curve(bundle)],
        "maps": [_drawn(chart) for chart in _maps(bundle, seed)],
    }


def _drawn(chart: Chart) -> dict[str, object]:
    return {"title": chart.title, "svg": Markup(chart.svg), "wide": chart.wide}


def _curve(bundle: Bundle) -> list[Chart]:
    epochs = bundle.manifest.training.curve
    if not epochs:
        return []
    numbers = list(range(1, len(epochs) + 1))
    losses = [epoch.loss for epoch in epochs]
    drawn = [Chart("Loss by epoch", charts.lines({"loss": (numbers, losses)}, "epoch", "loss"))]
    held = [(number, epoch.validation) for number, epoch in zip(numbers, epochs, strict=True)]
    known = [(number, value) for number, value in held if value is not None]
    if known:
        xs, ys = zip(*known, strict=True)
        drawn.append(Chart("On what was held out", charts.lines({"held out": (xs, ys)}, "epoch", "MRR@20")))
    return drawn


def _maps(bundle: Bundle, seed: int) -> list[Chart]:
    rows, places = projection.flat(bundle.vectors[: len(bundle.listings)], np.random.default_rng(seed))
    listings, shown = bundle.listings, rows.tolist()
    if not shown:
        return []
    drawn = []
    for title, of in (("market", listings.market), ("type", listings.type)):
        names = [of(row) for row in shown]
        if any(name is not None for name in names):
            drawn.append(Chart(f"The embeddings by {title}", charts.categories(places, names)))
    prices = np.array([listings.price(row) or np.nan for row in shown], np.float32)
    if not np.isnan(prices).all():
        drawn.append(Chart("The embeddings by price", charts.amounts(places, prices, "price")))
    return drawn or [Chart("The embeddings", charts.categories(places, [None] * len(shown)))]
