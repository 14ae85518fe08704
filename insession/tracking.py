"""MLflow: trainings and evaluations are logged to a tracking store, and bundles are found in its registry by name and alias.

The only place that imports mlflow. A worker or sidecar that is given `models:/NAME@ALIAS` in place of a folder has the
bundle fetched into a folder of its own, whose `current` follows the alias; it watches that as any other.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import click
import msgspec

from models import bundle as bundle_
from models.bundle import Manifest
from models.errors import UserError

log = logging.getLogger("insession.tracking")

LOCAL = "sqlite:///mlflow.db"
"""The tracking store unless another is named: a file in the folder where the command runs,"""
ARTIFACTS = "mlartifacts"
"""and beside it what is logged there."""
EXPERIMENT = "insession"
SCHEME = "models:/"
LOOK_SECONDS = 10.0
AT_ONCE = 1_000
"""Metrics that a store takes in one request."""
LONGEST = 250
"""The characters of a metric's or parameter's name that a store takes."""
F = TypeVar("F", bound=Callable[..., Any])
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "7"}
"""How MLflow's client asks whether a store is there, unless the environment says otherwise: by itself it goes on for minutes."""
RESERVED = re.compile(r"latest|v\d+", re.IGNORECASE)
"""Aliases that MLflow keeps for itself."""
_NAME = re.compile(r"(?P<name>[^@/:]{1,200})@(?P<alias>[^@/:]{1,200})")


def option(what: str) -> Callable[[F], F]:
    """The flag `--mlflow` of a command that logs `what`."""
    return click.option(
        "--mlflow",
        metavar="URI",
        is_flag=False,
        flag_value=LOCAL,
        help=f"Log {what} to this MLflow tracking store; without a URI to {LOCAL}.",
    )


class Registry:
    """A tracking store and the registry in it."""

    def __init__(self, uri: str) -> None:
        """Raises UserError where MLflow is missing or there is no such kind of store."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from mlflow import MlflowClient
                from mlflow.exceptions import MlflowException
        except ImportError:
            raise UserError("MLflow is missing: pip install 'insession[mlflow]'") from None
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self.uri = uri
        self._failure: type[Exception] = MlflowException
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._client: Any = MlflowClient(tracking_uri=uri, registry_uri=uri)
        except Exception as error:
            raise self._unreachable(error) from None

    def check(self) -> None:
        """Raise UserError where the store can't be reached, within a quarter of a minute."""
        try:
            with _impatient():
                self._client.get_experiment_by_name(EXPERIMENT)
        except (self._failure, OSError) as error:
            raise self._unreachable(error) from None

    def log(self, folder: Path, manifest: Manifest, seconds: float, register: tuple[str, str] | None) -> str:
        """Log the run that made the bundle in `folder`, with the bundle, and give it a name and an alias where these are
        told; the run's id."""
        client, training = self._client, manifest.training
        try:
            run = client.create_run(
                self._experiment(), run_name=f"{training.method or training.source} {folder.name}"
            )
            name = run.info.run_id
            told = {
                "method": training.method,
                "seed": training.seed,
                "data": training.data,
                "bundle": folder.name,
            }
            for key, value in (told | training.settings | {"dimensions": manifest.dimensions}).items():
                client.log_param(name, key, value)
            measured = training.metrics | {"seconds": seconds, "listings": manifest.listings}
            if manifest.index is not None and manifest.index.queries:
                measured |= {"recall_at_100": manifest.index.recall_at_100}
            for key, value in measured.items():
                client.log_metric(name, key, float(value))
            for number, epoch in enumerate(training.curve, 1):
                client.log_metric(name, "loss", epoch.loss, step=number)
                if epoch.validation is not None:
                    client.log_metric(name, "validation_mrr", epoch.validation, step=number)
            client.log_artifacts(name, str(folder), f"bundles/{folder.name}")
            if register is not None:
                self._register(*register, f"{run.info.artifact_uri}/bundles/{folder.name}", name)
            client.set_terminated(name)
        except (self._failure, OSError) as error:
            raise self._unreachable(error) from None
        return str(name)

    def log_evaluation(
        self,
        kind: str,
        parameters: Mapping[str, object],
        rows: Sequence[Mapping[str, Any]],
        report: Mapping[str, Any],
        page: Path | None,
    ) -> str:
        """Log an evaluation of this kind as a run; its id.

        The numbers in `rows` become its metrics (`metrics`), as do those beside the report's results, of how much was
        measured; the whole `report` becomes an artifact, as JSON, and the `page` another. Raises UserError where the
        store can't be reached.
        """
        client, now = self._client, int(time.time() * 1000)
        from mlflow.entities import Metric, Param

        told = {"evaluation": kind, **parameters}
        params = [Param(_allowed(name), str(value)) for name, value in told.items() if value is not None]
        sizes = {
            name: value
            for name, value in report.items()
            if isinstance(value, int | float) and name not in told
        }
        found = (*_numbers(sizes), *metrics(rows))
        measured = [Metric(name, value, now, step) for name, value, step in found]
        try:
            run = client.create_run(self._experiment(), run_name=f"evaluate {kind}").info.run_id
            client.log_batch(run, params=params)
            for start in range(0, len(measured), AT_ONCE):
                client.log_batch(run, metrics=measured[start : start + AT_ONCE])
            client.log_text(run, msgspec.json.encode(report).decode(), f"{kind}.json")
            if page is not None:
                client.log_artifact(run, str(page))
            client.set_terminated(run)
        except (self._failure, OSError) as error:
            raise self._unreachable(error) from None
        return str(run)

    def fetch(self, model: str, folder: Path) -> Path:
        """Make the bundle that `model`, NAME@ALIAS, is now the current one of `folder`; its path. Raises UserError."""
        name, alias = parsed(model)
        from mlflow.artifacts import download_artifacts

        try:
            with _impatient():
                version = self._client.get_model_version_by_alias(name, alias)
            bundle = str(version.source).rstrip("/").rpartition("/")[2]
            if not (folder / bundle / bundle_.MANIFEST).is_file():
                folder.mkdir(parents=True, exist_ok=True)
                with TemporaryDirectory(prefix=".fetching-", dir=folder) as part:
                    got = download_artifacts(
                        artifact_uri=version.source, dst_path=part, tracking_uri=self.uri
                    )
                    bundle_.load(Path(got))  # whole, or refused
                    Path(got).rename(folder / bundle)
            bundle_.point(folder, bundle)
        except (self._failure, OSError) as error:
            raise UserError(f"{SCHEME}{model}: {_first(error)}") from None
        return folder / bundle

    def _register(self, name: str, alias: str, source: str, run: str) -> None:
        try:
            self._client.get_registered_model(name)
        except self._failure:
            self._client.create_registered_model(name)
        version = self._client.create_model_version(name, source, run)
        self._client.set_registered_model_alias(name, alias, version.version)

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        local = self.uri.startswith("sqlite:")
        where = Path(ARTIFACTS).absolute().as_uri() if local else None
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=where))

    def _unreachable(self, error: Exception) -> UserError:
        return UserError(f"MLflow's store {self.uri}: {_first(error)}")


class Following:
    """The folder in which a bundle of the registry is the current one, as the alias moves."""

    def __init__(self, registry: Registry, model: str, folder: Path) -> None:
        """Fetches it at once. Raises UserError where it can't be had and there is none from before."""
        self._registry, self._model, self.folder = registry, model, folder
        self._ending = threading.Event()
        _latest(registry, model, folder)
        threading.Thread(target=self._follow, daemon=True).start()

    def stop(self) -> None:
        """Follow no more."""
        self._ending.set()

    def _follow(self) -> None:
        said = ""
        while not self._ending.wait(LOOK_SECONDS):
            try:
                self._registry.fetch(self._model, self.folder)
                said = ""
            except UserError as error:
                if str(error) != said:
                    log.warning("%s", error)
                said = str(error)


def parsed(model: str) -> tuple[str, str]:
    """The name and the alias of NAME@ALIAS. Raises UserError where it is none."""
    found = _NAME.fullmatch(model)
    if found is None:
        raise UserError(f"`{model}`: a bundle in MLflow's registry is NAME@ALIAS, as in listings@champion")
    return found["name"], found["alias"]


def to_register(model: str) -> tuple[str, str]:
    """The name and the alias of NAME@ALIAS. Raises UserError where it is none, or MLflow would register none under it."""
    name, alias = parsed(model)
    if not re.fullmatch(r"[\w-]+", alias):
        raise UserError(f"--register {model}: an alias has letters, digits, `_` and `-` only")
    if RESERVED.fullmatch(alias):
        raise UserError(
            f"--register {model}: MLflow keeps the aliases `latest`, `v1`, `v2`, ... for itself; take another"
        )
    if not name.strip() or name == "." or name.startswith(".."):
        raise UserError(f"--register {model}: MLflow has no bundle of the name `{name}`")
    return name, alias


def followed(bundle: Path, uri: str, folder: Path) -> Path:
    """Where to take bundles from: `bundle` itself or, where it is models:/NAME@ALIAS, one in `folder` that follows it."""
    model = _model(bundle)
    return bundle if model is None else Following(Registry(uri), model, folder / model).folder


def fetched(bundle: Path, uri: str, state: Path, *, or_before: bool = False) -> Path:
    """As `followed`, but of models:/NAME@ALIAS the bundle that the alias stands for now, below the folder `state`;
    where that can't be had and `or_before` is true, the one from before."""
    model = _model(bundle)
    if model is None:
        return bundle
    take = _latest if or_before else Registry.fetch
    return take(Registry(uri), model, state / "bundles-once" / model)


def metrics(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float, int]]:
    """Every number in the rows of an evaluation by a name that MLflow allows, and its step.

    A name is the path to the number in the JSON, from the row's name on, with `_at_` for `@`, and `_low` and `_high` for
    the ends of an interval; a number as a key on the way is the step.
    """
    for row in rows:
        head = "/".join(_part(row[key]) for key in ("name", "targets") if key in row)
        for path, value, step in _numbers(row):
            yield _allowed(f"{head}/{path}"), value, step


def _numbers(found: Mapping[Any, Any], step: int = 0) -> Iterator[tuple[str, float, int]]:
    for key, value in found.items():
        if isinstance(key, int):
            yield from _numbers(value, key)
        elif isinstance(value, Mapping):
            yield from ((f"{_part(key)}/{path}", number, at) for path, number, at in _numbers(value, step))
        elif isinstance(value, list | tuple):
            yield from (
                (f"{_part(key)}_{end}", float(at), step)
                for end, at in zip(("low", "high"), value, strict=True)
            )
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield _part(key), float(value), step


def _part(name: object) -> str:
    """Of a path: in one piece, and nothing that a path could end or go back with."""
    return str(name).replace("/", "-").strip(". ")[-LONGEST // 2 :] or "-"


def _allowed(name: str) -> str:
    return re.sub(r"[^\w.\-/ ]", "-", name.replace("@", "_at_"))[:LONGEST]


def _model(bundle: Path) -> str | None:
    """NAME@ALIAS where a bundle is told as models:/NAME@ALIAS. Raises UserError where it is one of neither."""
    text = os.fspath(bundle)
    if not text.startswith(SCHEME.rstrip("/")):
        return None
    model = text.removeprefix(SCHEME.rstrip("/")).lstrip("/")
    parsed(model)
    return model


def _latest(registry: Registry, model: str, folder: Path) -> Path:
    """The bundle that `model` is now or, where that can't be had, the one from before. Raises UserError where there is none."""
    try:
        return registry.fetch(model, folder)
    except UserError as error:
        if not (folder / bundle_.CURRENT).exists():
            raise
        log.warning("going on with the bundle from before: %s", error)
        return bundle_.find(folder)


@contextmanager
def _impatient() -> Iterator[None]:
    """What is asked of a store meanwhile fails soon."""
    added = IMPATIENT.keys() - os.environ.keys()
    os.environ.update({name: IMPATIENT[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
