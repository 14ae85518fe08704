"""`--report FILE.html` of the `insession evaluate` commands: what was measured, as one page.

What draws is only loaded where a page is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from insession.times import text
from models.bundle import Bundle

if TYPE_CHECKING:
    from models.evaluation.report import Chart, Report, Table

OWN = "insession"


def rerank(report: Mapping[str, Any], bundle: Bundle, says: str, warnings: Sequence[str]) -> Report:
    """The page of `insession evaluate rerank`."""
    from models.evaluation.report import Report, Table

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
        charts.append(_intervals(f"MRR, {targets} targets", of, "MRR", (OWN,)))
    return Report(
        title="Re-ranking recorded searches",
        says=says,
        warnings=warnings,
        tables=[Table("Where the chosen listing stands", columns, rows, (OWN,))],
        charts=charts,
        bundles={OWN: bundle},
    )


def next_click(report: Mapping[str, Any], bundles: Mapping[str, Bundle]) -> Report:
    """The page of `insession evaluate next-click`."""
    from models.evaluation.report import Report

    results: list[dict[str, Any]] = report["results"]
    own = tuple(bundles)
    charts = [
        _intervals(title, [(row["name"], row[name], *row["ci"][name]) for row in results], title, own)
        for name, title in (("hit_rate@20", "HR@20"), ("mrr@20", "MRR@20"), ("ndcg@20", "NDCG@20"))
    ]
    train, test = report["train"], report["test"]
    return Report(
        title="The next click",
        says=f"{report['n']:,} clicks in {report['visits']:,} visits, each asked for with what was clicked before it; learned"
        f" from {train['clicks']:,} clicks in {train['visits']:,} earlier visits of {train['listings']:,} listings."
        f" {test['visits']:,} visits were tested; seed {report['seed']}. Intervals are 95 % bootstrap intervals over visits.",
        warnings=report["warnings"],
        tables=[_metrics(results, own), _compared(results, own), *_cold(results)],
        charts=charts,
        bundles=bundles,
        seed=report["seed"],
    )


def booked_rank(
    report: Mapping[str, Any], bundles: Mapping[str, Bundle], recording: str, since: int | None
) -> Report:
    """The page of `insession evaluate booked-rank`."""
    from models.evaluation import charts
    from models.evaluation.report import Chart, Report, Table

    results: list[dict[str, Any]] = report["results"]
    own = tuple(bundles)
    others = [row["name"] for row in results if row["name"] not in bundles]
    bands = {
        row["name"]: [(point["clicks_before"], point["mean_rank"], *point["ci"]) for point in row["curve"]]
        for row in results
    }
    counts = [point["n"] for point in results[0]["curve"]]
    across, up = "clicks before the booking, and bookings with so many", "mean rank of the booked listing"
    overall = [(row["name"], row["mean_rank"], *row["ci"]) for row in results]
    means = []
    for row in results:
        versus = row.get("versus")
        apart = (
            [f"{versus['difference']:+.2f}", _interval(versus["ci"], 2), f"{versus['p']:.4f}"]
            if versus
            else ["", "", ""]
        )
        means.append([row["name"], f"{row['mean_rank']:.2f}", _interval(row["ci"], 2), *apart])
    points = [
        [str(at[0]["clicks_before"]), f"{at[0]['n']:,}"]
        + [f"{point['mean_rank']:.2f} ({_interval(point['ci'], 1)})" for point in at]
        for at in zip(*(row["curve"] for row in results), strict=True)
    ]
    names = [row["name"] for row in results]
    return Report(
        title="How early the booked listing is on top",
        says=f"{report['n']:,} bookings of {recording}{f' from {text(since)}' if since is not None else ''} with"
        f" {report['clicks']:,} clicks before them. At each click the {report['candidates']:.1f} candidates of a visit, on"
        " average, are ordered by how near they are to the clicked listing; lower is better."
        f" Intervals are 95 % bootstrap intervals over visits; seed {report['seed']}.",
        warnings=report["warnings"],
        tables=[
            Table(
                "Mean rank over all clicks",
                ("order", "mean rank", "95 %", "against as shown", "95 %", "p"),
                means,
                own,
            ),
            Table("Mean rank by clicks before the booking, and 95 %", ("clicks before", "n", *names), points),
        ],
        charts=[
            Chart(
                "Where the listing stands that is booked in the end",
                charts.countdown(bands, counts, across, up, others),
                wide=True,
            ),
            _intervals("Over all clicks", overall, "mean rank", own),
        ],
        bundles=bundles,
        seed=report["seed"],
    )


def similar(report: Mapping[str, Any], bundles: Mapping[str, Bundle]) -> Report:
    """The page of `insession evaluate similar`."""
    from models.evaluation.report import Report, Table

    results: list[dict[str, Any]] = report["results"]
    colds = [row | row["cold"] for row in results if row["cold"]["cosine"] is not None]
    held = [
        [
            row["name"],
            *(
                f"{row['cold'][key]:,}"
                for key in ("without_vector", "reached", "held_out", "held_out_reached")
            ),
        ]
        + (
            [f"{row['cold']['cosine']:.3f}", _interval(row["cold"]["ci"])]
            if row["cold"]["cosine"] is not None
            else ["", ""]
        )
        + [f"{row['cold']['chance']:.3f}" if row["cold"]["chance"] is not None else ""]
        for row in results
    ]
    cosines = [
        _cosines(f"{row['name']}: mean cosine by {kind.replace('_', ' ')}", cells)
        for row in results
        for kind, cells in row["cosines"].items()
        if cells
    ]
    ks = sorted({row["k"] for row in results})
    return Report(
        title="Are listings near each other alike?",
        says=f"The {' and '.join(map(str, ks))} nearest of up to {max(row['n'] for row in results):,} listings of each bundle,"
        " among all listings with a vector, beside what it would be by chance. Cold listings were held out, and given the"
        " vector of their neighbours. Mean cosines are of pairs within a market, whose prices are in five ranges, 0 the lowest."
        f" Intervals are 95 % bootstrap intervals over listings; seed {report['seed']}.",
        tables=[
            *_shares("What the nearest share", results),
            *_shares("What the nearest of cold listings share", colds),
            Table(
                "Cold listings",
                (
                    "bundle",
                    "without a vector",
                    "with neighbours",
                    "held out",
                    "given a vector",
                    "cosine with their own",
                    "95 %",
                    "by chance",
                ),
                held,
            ),
            *cosines,
        ],
        charts=[
            *_share_charts("Same", results),
            *_share_charts("Cold listings: same", colds),
        ],
        bundles=bundles,
        seed=report["seed"],
    )


def _shares(title: str, results: Iterable[Mapping[str, Any]]) -> list[Table]:
    """The table, where anything is known that listings can share."""
    from models.evaluation.report import Table

    rows = [
        (
            row["name"],
            name.replace("_", " "),
            f"{share['n']:,}",
            f"{share['share']:.3f}",
            _interval(share["ci"]),
            f"{share['chance']:.3f}",
        )
        for row in results
        for name, share in row["shares"].items()
    ]
    columns = ("bundle", "same", "listings", "share", "95 %", "by chance")
    return [Table(title, columns, rows)] if rows else []


def _share_charts(title: str, results: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """A chart for each thing that listings can share."""
    made = []
    for name in dict.fromkeys(name for row in results for name in row["shares"]):
        of = [(row["name"], row["shares"][name]) for row in results if name in row["shares"]]
        rows = [(bundle, share["share"], *share["ci"]) for bundle, share in of]
        heading = f"{title} {name.replace('_', ' ')}"
        chances = [share["chance"] for _, share in of]
        made.append(_intervals(heading, rows, "share of the nearest", [bundle for bundle, _ in of], chances))
    return made


def _cosines(title: str, cells: Mapping[str, Mapping[str, float]]) -> Table:
    """The darker, the nearer the two kinds are, from the least of the table to the greatest."""
    from models.evaluation.report import Table

    names = list(cells)
    values = [value for row in cells.values() for value in row.values()]
    least, apart = min(values), max(values) - min(values) or 1.0
    return Table(
        title,
        ("", *names),
        [
            [name, *(f"{row[other]:.3f}" if other in row else "" for other in names)]
            for name, row in cells.items()
        ],
        shades=[
            [(row[other] - least) / apart if other in row else 0.0 for other in names]
            for row in cells.values()
        ],
    )


def _metrics(results: Iterable[Mapping[str, Any]], own: Sequence[str]) -> Table:
    from models.evaluation.report import Table

    shown = {"hit_rate": "HR", "mrr": "MRR", "ndcg": "NDCG"}
    names = {f"{metric}@{k}": f"{short}@{k}" for k in (5, 10, 20) for metric, short in shown.items()}
    names |= {"coverage@20": "coverage@20", "popularity_bias@20": "popularity@20"}
    rows = [
        (row["name"], *(f"{row[name]:.3f}" for name in names), f"{row['seconds']:.1f}") for row in results
    ]
    return Table("Which listing is clicked next", ("method", *names.values(), "seconds"), rows, own)


def _cold(results: Iterable[Mapping[str, Any]]) -> list[Table]:
    """What the vectors of listings are worth that nobody had clicked, where there were clicks on such."""
    from models.evaluation.report import Table

    columns = ("method", "clicks", "with a vector", "HR@20", "95 %", "chance", "MRR@20", "95 %", "chance")
    rows = []
    for row in results:
        cold = row.get("cold", {})
        if not cold.get("n"):
            continue
        cells = [row["name"], f"{cold['clicks']:,}", f"{cold['coverage']:.1%}"]
        for name in ("hit_rate@20", "mrr@20"):
            cells += [f"{cold[name]:.3f}", _interval(cold["ci"][name]), f"{cold['chance'][name]:.3f}"]
        rows.append(cells)
    title = "Clicks on listings without a click in the training, found among all such"
    return [Table(title, columns, rows)] if rows else []


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
    title: str,
    rows: Sequence[tuple[str, float, float, float]],
    label: str,
    own: Sequence[str],
    chances: Sequence[float | None] = (),
) -> Chart:
    from models.evaluation import charts
    from models.evaluation.report import Chart

    return Chart(title, charts.intervals(rows, label, own, chances))


def _interval(ends: Sequence[float], digits: int = 3) -> str:
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"
