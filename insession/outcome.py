"""What becomes of what an `insession evaluate` command measured: it is printed, made a page, and logged to MLflow."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from insession import tracking
from insession.tracking import Registry
from models.bundle import Bundle
from models.errors import UserError

if TYPE_CHECKING:
    from models.evaluation.report import Report

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where it goes."""

    path: Path | None
    registry: Registry | None
    as_json: bool

    def tell(
        self,
        kind: str,
        report: dict[str, Any],
        *,
        table: Callable[[], str],
        page: Callable[[], Report],
        parameters: Mapping[str, object],
        bundles: Mapping[str, Bundle],
        warnings: Sequence[str] = (),
        rows: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Print the report, as JSON or a table, with the warnings on stderr, after it was written and logged as asked.

        What is logged of it are the numbers in `rows`, by default its results. Raises UserError where the page can't be
        written or the store be reached; it is printed all the same, since measuring may have taken long.
        """
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        try:
            if self.path is not None:
                from models.evaluation.report import write

                write(self.path, page())
            if self.registry is not None:
                told = {**parameters, **_bundles(bundles), "warnings": "\n".join(warnings) or None}
                measured = report["results"] if rows is None else rows
                report["mlflow_run"] = self.registry.log_evaluation(kind, told, measured, report, self.path)
        finally:
            click.echo(msgspec.json.encode(report) if self.as_json else table())


def options(command: F) -> F:
    """Give a command the flags --report, --mlflow and --json, and as its argument `outcome` what they say.

    A page that could not be written and a store that can't be reached are refused before anything is measured.
    """

    @click.option(
        "--report",
        "report_path",
        metavar="FILE.html",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Also write a page with tables, charts, the learning curves and a map of the embeddings.",
    )
    @tracking.option("the evaluation and its report")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @functools.wraps(command)
    def run(*, report_path: Path | None, mlflow: str | None, as_json: bool, **arguments: object) -> object:
        _check(report_path)
        registry = Registry(mlflow) if mlflow else None
        if registry is not None:
            registry.check()
        return command(outcome=Outcome(report_path, registry, as_json), **arguments)

    decorated: Any = run
    return decorated  # type: ignore[no-any-return]


def _check(path: Path | None) -> None:
    """Raise UserError where the page could not be made or written."""
    if path is None:
        return
    try:
        import models.evaluation.report  # noqa: F401
    except ImportError as error:
        raise UserError(f"--report needs {error.name}: pip install 'insession[evaluate]'") from None
    if not path.parent.is_dir():
        raise UserError(f"--report {path}: there is no folder {path.parent}")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"--report {path}: it can't be written")


def _bundles(bundles: Mapping[str, Bundle]) -> dict[str, object]:
    """Of each what it is and what it was made from; one that was only made for this has no name."""
    told: dict[str, object] = {f"bundle.{name}": made.name or None for name, made in bundles.items()}
    return told | {f"bundle.{name}.data": made.manifest.training.data for name, made in bundles.items()}
