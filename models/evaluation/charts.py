"""Charts of a report, as SVG that stands in a page by itself. The only place that imports matplotlib."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f5539", "#6c6c6c")
"""Told apart by the colour-blind too (Okabe and Ito, "Color universal design", 2008)."""
OTHERS, OWN, PLAIN = "#c9c9c9", "#0072b2", "#8a8a8a"
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


def intervals(rows: Sequence[tuple[str, float, float, float]], label: str, own: Sequence[str]) -> str:
    """Names with a value and the ends of its interval, the first at the top; `own` stand out."""
    figure, axes = _figure(6.4, 0.6 + 0.28 * len(rows))
    for place, (name, value, low, high) in enumerate(reversed(rows)):
        colour = OWN if name in own else PLAIN
        axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot([value], [place], "o", color=colour, markersize=5)
    axes.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(label)
    axes.grid(axis="x", color="#e6e6e6")
    return _svg(figure)


def lines(series: Series, across: str, up: str, *, falling: bool = False) -> str:
    """A line each; with `falling` what is greater across stands on the left."""
    figure, axes = _figure(6.4, 3.4)
    for number, (name, (xs, ys)) in enumerate(series.items()):
        axes.plot(xs, ys, "o-", markersize=3, color=COLOURS[number % len(COLOURS)], label=name)
    if falling:
        axes.invert_xaxis()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(color="#e6e6e6")
    if len(series) > 1:
        axes.legend(frameon=False)
    return _svg(figure)


def categories(places: Floats, names: Sequence[str | None], label: str) -> str:
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
        axes.scatter(own[:, 0], own[:, 1], s=6, color=COLOURS[code], linewidths=0, label=name)
    axes.legend(
        title=label, frameon=False, markerscale=2.5, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8
    )
    return _svg(figure)


def amounts(places: Floats, values: Floats, label: str) -> str:
    """Points at `places`, [n, 2], by how great their values, [n], are, NaN where that is not known."""
    figure, axes = _map()
    known = ~np.isnan(values)
    axes.scatter(places[~known, 0], places[~known, 1], s=6, color=OTHERS, linewidths=0)
    drawn = axes.scatter(
        places[known, 0], places[known, 1], s=6, c=values[known], cmap="viridis", norm="log", linewidths=0
    )
    figure.colorbar(drawn, ax=axes, label=label, shrink=0.7)
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots()


def _map() -> tuple[Figure, Axes]:
    figure, axes = _figure(5.6, 4.0)
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
