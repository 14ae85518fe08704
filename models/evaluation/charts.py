"""Charts of a report, as SVG that stands in a page by itself. The only place that imports matplotlib."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle, product
from textwrap import shorten
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f5539", "#6c6c6c")
"""Told apart by the colour-blind too (Okabe and Ito, "Color universal design", 2008)."""
OTHERS, OWN, PLAIN, GRID = "#c9c9c9", "#0072b2", "#8a8a8a", "#e6e6e6"
WIDTH = 4.0
"""Of a chart, in inches: three stand beside each other on a page, and each is legible on a telephone."""
NOTHING = "not known"
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "insession",
}

Floats = npt.NDArray[np.float32]
Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""By name, where the points are across and up."""
Band = tuple[int, float, float, float]
"""Where a point is across and up, and the ends of its interval."""


def intervals(
    rows: Sequence[tuple[str, float, float, float]],
    label: str,
    own: Sequence[str],
    chances: Sequence[float | None] = (),
) -> str:
    """Names with a value and the ends of its interval, the first at the top; `own` stand out. Where there are `chances`,
    one for each row, all are shares, and a hollow mark shows what it would be by chance."""
    figure, axes = _figure(WIDTH, 0.7 + 0.26 * len(rows))
    for place, (name, value, low, high) in enumerate(rows):
        colour = OWN if name in own else PLAIN
        axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot([value], [place], "o", color=colour, markersize=5)
    known = [(chance, place) for place, chance in enumerate(chances) if chance is not None]
    if known:
        axes.plot(
            *zip(*known, strict=True), "D", color=PLAIN, fillstyle="none", markersize=5, label="by chance"
        )
        figure.legend(loc="outside upper right", frameon=False)
        axes.set_xlim(-0.02, 1.02)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(label)
    axes.grid(axis="x", color=GRID)
    return _svg(figure)


def lines(series: Series, across: str, up: str) -> str:
    """A line each over whole numbers."""
    figure, axes = _figure(WIDTH, 3.4)
    for number, (name, (xs, ys)) in enumerate(series.items()):
        axes.plot(xs, ys, "o-", markersize=3, color=COLOURS[number % len(COLOURS)], label=name)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(color=GRID)
    if len(series) > 1:
        axes.legend(frameon=False)
    return _svg(figure)


def countdown(
    bands: Mapping[str, Sequence[Band]],
    counts: Sequence[int],
    across: str,
    up: str,
    plain: Sequence[str] = (),
) -> str:
    """A line each with its intervals, over whole numbers that fall from left to right; `plain` ones stand back. `counts`
    says for each number of how many values the points are, and stands below it."""
    figure, axes = _figure(2 * WIDTH, 3.6)
    styles = cycle(product(("-o", ":s", "-.^"), COLOURS))
    for name, points in bands.items():
        line, colour = ("--o", PLAIN) if name in plain else next(styles)
        xs, means, lows, highs = zip(*points, strict=True)
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.12, linewidth=0)
        axes.plot(xs, means, line, markersize=4, color=colour, label=name)
    numbers = [point[0] for point in next(iter(bands.values()))]
    axes.set_xticks(numbers, [f"{number}\n{count:,}" for number, count in zip(numbers, counts, strict=True)])
    axes.invert_xaxis()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(color=GRID)
    figure.legend(loc="outside upper left", ncols=4, frameon=False)
    return _svg(figure)


def categories(places: Floats, names: Sequence[str | None]) -> str:
    """Points at `places`, [n, 2], by the colour of their names: the most frequent ones each, the others together."""
    figure, axes = _map()
    counts = Counter(name for name in names if name is not None)
    shown = [name for name, _ in counts.most_common(len(COLOURS))]
    codes = np.array([shown.index(name) if name in shown else -1 for name in names])
    rest = codes < 0
    if rest.any():
        some = NOTHING if None in names and len(counts) <= len(shown) else "others"
        axes.scatter(places[rest, 0], places[rest, 1], s=6, color=OTHERS, linewidths=0, label=some)
    for code, name in enumerate(shown):
        own = places[codes == code]
        axes.scatter(
            own[:, 0],
            own[:, 1],
            s=6,
            color=COLOURS[code],
            linewidths=0,
            label=shorten(name, 20, placeholder="…"),
        )
    figure.legend(loc="outside lower center", ncols=3, frameon=False, markerscale=2.5, handletextpad=0.2)
    return _svg(figure)


def amounts(places: Floats, values: Floats, label: str) -> str:
    """Points at `places`, [n, 2], by how great their values, [n], are, NaN where that is not known."""
    figure, axes = _map()
    known = ~np.isnan(values)
    axes.scatter(places[~known, 0], places[~known, 1], s=6, color=OTHERS, linewidths=0)
    drawn = axes.scatter(
        places[known, 0], places[known, 1], s=6, c=values[known], cmap="viridis", norm="log", linewidths=0
    )
    bar = figure.colorbar(drawn, ax=axes, label=label, location="bottom", shrink=0.8, aspect=30)
    inner = np.geomspace(*drawn.get_clim(), 6)[1:-1]
    bar.set_ticks(sorted({float(f"{tick:.2g}") for tick in inner}))
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    bar.ax.xaxis.set_minor_locator(NullLocator())
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots()


def _map() -> tuple[Figure, Axes]:
    figure, axes = _figure(WIDTH, 4.0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_aspect("equal", "datalim")
    return figure, axes


def _svg(figure: Figure) -> str:
    """The drawing as an element: it grows with the page, and is the same for the same data."""
    content = io.StringIO()
    with mpl.rc_context(STYLE):
        FigureCanvasSVG(figure).print_svg(content, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    element = content.getvalue()
    return re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", element[element.index("<svg") :], count=1)
