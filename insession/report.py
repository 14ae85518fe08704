"""`--report FILE.html` of the `insession evaluate` commands: what was measured, as one page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.bundle import Bundle
from models.errors import UserError

if TYPE_CHECKING:
    from models.evaluation.report import Chart, Table

OWN = "insession"

option = click.option(
    "--report",
    "report_path",
    metavar="FILE.html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write a page with tables, charts, the learning curves and a map of the embeddings.",
)


def check(path: Path | None) -> None:
    """Raise UserError where the page could not be made or written, before anything is measured for it."""
    if path is None:
        return
    try:
        import models.evaluation.report  # noqa: F401
    except ImportError as error:
        raise UserError(f"--report needs {error.name}: pip install 'insession[evaluate]'") from None
    if not path.parent.is_dir():
        raise UserError(f"--report {path}: there is no folder {path.parent}")


def rerank(path: Path, report: Mapping[str, Any], bundle: Bundle, says: str, warnings: Sequence[str]) -> None:
    """The page of `insession evaluate rerank`."""
    from models.evaluation.report import Report, Table, write

    results: list[dict[str, Any]] = [row for row in report["results"] if row["n"]]
    columns = ("ranking", "targets", "n", "MRR", "95 %", "mean rank", "95 %", "MRR against", "p")
    rows = [
        (
            row["name"],
            row["targets"],
            f"{row['n']:,}",
            f"{row['mrr']:.3f}",
            _interval(row["mrr_ci"]),
            f"{row['mean_rank']:.2f}",
            _interval(row["mean_rank_ci"], 2),
            f"{row['versus']['difference']:+.3f} {row['versus']['baseline']}",
            f"{row['versus']['p']:.4f}",
        )
        for row in results
    ]
    charts = []
    for targets in dict.fromkeys(row["targets"] for row in results):
        of = [(row["name"], row["mrr"], *row["mrr_ci"]) for row in results if row["targets"] == targets]
        charts.append(_intervals(f"MRR of the chosen listing, {targets} targets", of, "MRR", (OWN,)))
    write(
        path,
        Report(
            title="Re-ranking recorded searches",
            says=says,
            warnings=warnings,
            tables=[Table("Where the chosen listing stands", columns, rows, (OWN,))],
            charts=charts,
            bundles={bundle.name: bundle},
        ),
    )


def next_click(
    path: Path, report: Mapping[str, Any], bundles: Mapping[str, Bundle], warnings: Sequence[str]
) -> None:
    """The page of `insession evaluate next-click`."""
    from models.evaluation.report import Report, write

    results: list[dict[str, Any]] = report["results"]
    own = tuple(bundles)
    charts = [
        _intervals(title, [(row["name"], row[name], *row["ci"][name]) for row in results], title, own)
        for name, title in (("hit_rate@20", "HR@20"), ("mrr@20", "MRR@20"), ("ndcg@20", "NDCG@20"))
    ]
    train, test = report["train"], report["test"]
    write(
        path,
        Report(
            title="The next click",
            says=f"{report['n']:,} clicks in {report['visits']:,} visits, each asked for with what was clicked before it; learned"
            f" from {train['clicks']:,} clicks in {train['visits']:,} earlier visits of {train['listings']:,} listings."
            f" {test['visits']:,} visits were tested; seed {report['seed']}. Intervals are 95 % bootstrap intervals over visits.",
            warnings=warnings,
            tables=[_metrics(results, own), _compared(results, own)],
            charts=charts,
            bundles=bundles,
            seed=report["seed"],
        ),
    )


def _metrics(results: Iterable[Mapping[str, Any]], own: Sequence[str]) -> Table:
    from models.evaluation.report import Table

    names = [f"{metric}@{k}" for k in (5, 10, 20) for metric in ("hit_rate", "mrr", "ndcg")]
    names += ["coverage@20", "popularity_bias@20"]
    rows = [
        (row["name"], *(f"{row[name]:.3f}" for name in names), f"{row['seconds']:.1f}") for row in results
    ]
    return Table("Which listing is clicked next", ("method", *names, "seconds"), rows, own)


def _compared(results: Iterable[Mapping[str, Any]], own: Sequence[str]) -> Table:
    from models.evaluation.report import Table

    rows = []
    for row in results:
        cells = [row["name"]]
        for name in ("hit_rate@20", "mrr@20"):
            versus = row["versus"].get(name)
            cells += [_interval(row["ci"][name])]
            cells += (
                [f"{versus['difference']:+.3f} {versus['baseline']}", f"{versus['p']:.4f}"]
                if versus
                else ["", ""]
            )
        rows.append(cells)
    columns = ("method", "HR@20, 95 %", "against", "p", "MRR@20, 95 %", "against", "p")
    return Table("Against the best other baseline", columns, rows, own)


def _intervals(
    title: str, rows: list[tuple[str, float, float, float]], label: str, own: Sequence[str]
) -> Chart:
    from models.evaluation import charts
    from models.evaluation.report import Chart

    return Chart(title, charts.intervals(rows, label, own))


def _interval(ends: Sequence[float], digits: int = 3) -> str:
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"
