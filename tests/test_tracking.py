from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from insession import evaluate, serve, tracking, train
from insession.tracking import Following, Registry
from models import bundle
from models.datasets.marketplace import Marketplace
from models.errors import UserError
from serving import server
from tests.made import a_bundle, record


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a recording, where commands run."""
    folder = tmp_path_factory.mktemp("mlflow")
    record(folder / "r.jsonl.zst", Marketplace(3, markets=2, listings=200).events(60))
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def trained(*flags: str) -> dict[str, object]:
    arguments = ["r.jsonl.zst", "--out", "bundles", "--epochs", "2", "--dimensions", "8", "--json", *flags]
    result = CliRunner().invoke(train.command, arguments, catch_exceptions=False)
    report: dict[str, object] = msgspec.json.decode(result.stdout)
    return report


def test_a_run_is_logged_with_its_settings_curve_and_bundle(place: Path) -> None:
    from mlflow import MlflowClient

    report = trained("--mlflow", "--validation", "0.2")
    client = MlflowClient(tracking_uri=tracking.LOCAL)
    run = client.get_run(str(report["mlflow_run"]))
    assert run.info.status == "FINISHED"
    assert run.data.params["method"] == "session-encoder"
    assert run.data.params["epochs"] == "2"
    assert run.data.params["bundle"] == report["bundle"]
    assert run.data.metrics["sessions"] == report["sessions"]
    assert [point.step for point in client.get_metric_history(run.info.run_id, "loss")] == [1, 2]
    assert len(client.get_metric_history(run.info.run_id, "validation_mrr")) == 2
    assert {path.path for path in client.list_artifacts(run.info.run_id, f"bundles/{report['bundle']}")} >= {
        f"bundles/{report['bundle']}/manifest.json"
    }


def test_a_bundle_is_found_by_name_and_alias_and_followed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "LOOK_SECONDS", 0.05)
    first = trained("--mlflow", "--register", "listings@champion", "--seed", "2")
    following = Following(Registry(tracking.LOCAL), "listings@champion", place / "fetched")
    try:
        assert bundle.load(following.folder).name == first["bundle"]
        second = trained("--mlflow", "--register", "listings@champion", "--seed", "3")
        assert second["bundle"] != first["bundle"]
        until = time.monotonic() + 20
        while bundle.find(following.folder).name != second["bundle"]:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert bundle.load(following.folder).name == second["bundle"]
    finally:
        following.stop()


def test_a_folder_is_taken_as_it_is_and_a_model_is_fetched_below_the_state(place: Path) -> None:
    assert tracking.followed(Path("bundles"), "nowhere", place) == Path("bundles")
    report = trained("--mlflow", "--register", "other@champion")
    folder = tracking.followed(Path("models:/other@champion"), tracking.LOCAL, place / "state")
    assert folder == place / "state" / "other@champion"
    assert bundle.load(folder).name == report["bundle"]


def test_what_is_asked_for_now_is_not_what_was_there_before(place: Path) -> None:
    report = trained("--mlflow", "--register", "gone@champion")
    model, state = Path("models:/gone@champion"), place / "state"
    assert bundle.load(tracking.fetched(model, tracking.LOCAL, state)).name == report["bundle"]
    other = f"sqlite:///{place}/other.db"
    with pytest.raises(UserError, match="models:/gone@champion: "):
        tracking.fetched(model, other, state)
    assert tracking.fetched(model, other, state, or_before=True).name == report["bundle"]


def test_a_bundle_that_is_damaged_in_the_store_is_not_taken(place: Path) -> None:
    report = trained("--mlflow", "--register", "broken@champion", "--seed", "9")
    [vectors] = place.glob(f"{tracking.ARTIFACTS}/*/artifacts/bundles/{report['bundle']}/vectors.safetensors")
    vectors.write_bytes(b"other")
    with pytest.raises(UserError, match="damaged"):
        Registry(tracking.LOCAL).fetch("broken@champion", place / "broken")
    assert not [path for path in (place / "broken").iterdir() if not path.name.startswith(".")]


def test_what_is_wrong_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(tracking.LOCAL)
    with pytest.raises(UserError, match=r"models:/nothing@champion: .*nothing"):
        registry.fetch("nothing@champion", place / "nothing")
    with pytest.raises(UserError, match="NAME@ALIAS, as in listings@champion"):
        registry.fetch("listings", place / "nothing")
    with pytest.raises(UserError, match=r"MLflow.s store nonsense://x"):
        Registry("nonsense://x")
    result = CliRunner().invoke(train.command, ["r.jsonl.zst", "--out", "bundles", "--register", "a@b"])
    assert "--register goes with --mlflow" in str(result.exception)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match=r"pip install 'insession\[mlflow\]'"):
        Registry(tracking.LOCAL)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("x@v1", "MLflow keeps the aliases"),
        ("x@V12", "MLflow keeps the aliases"),
        ("x@Latest", "MLflow keeps the aliases"),
        ("x@the best", "letters, digits"),
        ("..@best", "no bundle of the name"),
        (" @best", "no bundle of the name"),
        ("x", "NAME@ALIAS"),
    ],
)
def test_what_could_not_be_registered_is_refused_before_anything_is_learned(
    place: Path, model: str, says: str
) -> None:
    result = CliRunner().invoke(
        train.command, ["absent.zst", "--out", "bundles", "--mlflow", "--register", model]
    )
    assert isinstance(result.exception, UserError)
    assert says in str(result.exception)


def test_what_is_not_reserved_may_be_registered() -> None:
    for alias in ("champion", "v", "v1-rc", "latest_2", "1"):
        assert tracking.to_register(f"a b@{alias}") == ("a b", alias)


@pytest.fixture(params=["refuses", "is silent"])
def away(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a store that can't be reached."""
    for name in tracking.IMPATIENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(tracking.IMPATIENT, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        if request.param == "refuses":
            listening.close()
        yield f"http://127.0.0.1:{port}"


def test_a_store_that_is_away_is_one_line_before_anything_is_learned_or_measured(
    place: Path, away: str
) -> None:
    for command, arguments in (
        (train.command, ["absent.zst", "--out", "bundles"]),
        (evaluate.command, ["similar", "--bundle", "absent"]),
    ):
        started = time.monotonic()
        result = CliRunner().invoke(command, [*arguments, "--mlflow", away])
        assert isinstance(result.exception, UserError)
        assert str(result.exception).startswith(f"MLflow's store {away}: ")
        assert "\n" not in str(result.exception)
        assert time.monotonic() - started < 10
    assert not tracking.IMPATIENT.keys() & os.environ.keys()


def test_how_often_a_store_is_asked_is_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    retries, timeout = tracking.IMPATIENT
    monkeypatch.setenv(retries, "5")
    monkeypatch.delenv(timeout, raising=False)
    with tracking._impatient():
        assert (os.environ[retries], os.environ[timeout]) == ("5", tracking.IMPATIENT[timeout])
    assert (os.environ[retries], os.environ.get(timeout)) == ("5", None)


def evaluated(kind: str, *arguments: str) -> dict[str, Any]:
    flags = [kind, *arguments, "--mlflow", "--json"]
    result = CliRunner().invoke(evaluate.command, flags, catch_exceptions=False)
    report: dict[str, Any] = msgspec.json.decode(result.stdout)
    return report


BUNDLES, ONLY = ("--bundle", "bundles"), ("--only", "popularity", "--only", "bundles")
SPLIT = "2024-12-30T02:00"
EVALUATIONS: dict[str, tuple[str, ...]] = {
    "next-click": ("--train", "r.jsonl.zst", "--test", "r.jsonl.zst", "--split", SPLIT, *ONLY, *BUNDLES),
    "similar": BUNDLES,
    "booked-rank": ("r.jsonl.zst", *BUNDLES),
    "rerank": ("r.jsonl.zst", *BUNDLES),
}
MEASURED = {
    "next-click": ("bundles/mrr_at_20", "bundles/ci/mrr_at_20_low", "bundles/versus/mrr_at_20/p"),
    "similar": ("bundles/shares/market/share", "bundles/shares/market/ci_high", "bundles/cold/held_out"),
    "booked-rank": ("bundles/mean_rank", "bundles/ci_low", "shown/mean_rank", "bundles/versus/difference"),
    "rerank": ("insession/all/mrr", "insession/all/mrr_ci_low", "shown/unseen/mean_rank_ci_high"),
}


@pytest.mark.parametrize("kind", EVALUATIONS)
def test_every_evaluation_is_logged_with_what_it_was_told_what_it_found_and_its_result(
    place: Path, kind: str
) -> None:
    from mlflow import MlflowClient

    made = trained()
    report = evaluated(kind, *EVALUATIONS[kind], "--report", f"{kind}.html")
    client = MlflowClient(tracking_uri=tracking.LOCAL)
    run = client.get_run(report["mlflow_run"])
    assert (run.info.run_name, run.info.status) == (f"evaluate {kind}", "FINISHED")
    params, name = run.data.params, "insession" if kind == "rerank" else "bundles"
    assert (params["evaluation"], params["seed"]) == (kind, "1")
    assert params[f"bundle.{name}"] == made["bundle"]
    assert params[f"bundle.{name}.data"] == bundle.load(Path("bundles")).manifest.training.data
    if kind == "next-click":
        assert (params["test"], params["split"]) == ("r.jsonl.zst", "2024-12-30 02:00:00 UTC")
        assert run.data.metrics["n"] == report["n"]
    if kind in ("booked-rank", "rerank"):
        assert params["recording"] == "r.jsonl.zst"
        assert "trained on" in params["warnings"]
    assert set(MEASURED[kind]) <= run.data.metrics.keys()
    row = next(row for row in report["results"] if row["name"] == name)
    first = {
        "next-click": lambda: row["mrr@20"],
        "similar": lambda: row["shares"]["market"]["share"],
        "booked-rank": lambda: row["mean_rank"],
        "rerank": lambda: row["mrr"],
    }[kind]
    assert run.data.metrics[MEASURED[kind][0]] == first()
    paths = {path.path for path in client.list_artifacts(run.info.run_id)}
    assert paths == {f"{kind}.json", f"{kind}.html"}
    [logged] = place.glob(f"{tracking.ARTIFACTS}/{run.info.run_id}/artifacts/{kind}.json")
    assert msgspec.json.decode(logged.read_bytes()) == {
        key: value for key, value in report.items() if key != "mlflow_run"
    }


def test_the_curve_of_the_booked_rank_is_logged_by_clicks_before_the_booking(place: Path) -> None:
    from mlflow import MlflowClient

    trained()
    report = evaluated("booked-rank", *EVALUATIONS["booked-rank"])
    client = MlflowClient(tracking_uri=tracking.LOCAL)
    points = client.get_metric_history(report["mlflow_run"], "bundles/curve/mean_rank")
    curve = report["results"][1]["curve"]
    assert {point.step: point.value for point in points} == {
        at["clicks_before"]: at["mean_rank"] for at in curve
    }
    assert [path.path for path in client.list_artifacts(report["mlflow_run"])] == ["booked-rank.json"]


def test_names_of_any_kind_and_more_than_a_store_takes_at_once_are_logged(place: Path) -> None:
    from mlflow import MlflowClient

    registry = Registry(tracking.LOCAL)
    rows = [
        {"name": name, "mrr@20": 0.5, "ci": {"mrr@20": [0.4, 0.6]}, "none": None, "is": True, "what": "x"}
        for name in ("/a/../b", "..", "x" * 300, "Zürich, über?", "a\nb")
    ]
    rows.append({"name": "many"} | {f"m{number}": number for number in range(2 * tracking.AT_ONCE)})
    run = registry.log_evaluation("odd", {"of.Zürich/?": "x"}, rows, {"n": 7}, None)
    found = MlflowClient(tracking_uri=tracking.LOCAL).get_run(run).data
    assert found.metrics["n"] == 7
    assert len(found.metrics) == 1 + 5 * 3 + 2 * tracking.AT_ONCE
    assert found.metrics["Zürich- über-/ci/mrr_at_20_high"] == 0.6
    assert found.params["of.Zürich/-"] == "x"


def test_what_was_measured_is_printed_where_it_can_not_be_logged(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> str:
        raise UserError("away")

    trained()
    monkeypatch.setattr(Registry, "log_evaluation", away)
    result = CliRunner().invoke(evaluate.command, ["similar", "--bundle", "bundles", "--mlflow", "--json"])
    assert str(result.exception) == "away"
    assert "mlflow_run" not in msgspec.json.decode(result.stdout)


def test_a_sidecars_shadow_and_variants_are_fetched_once_from_the_registry(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(server, "run", lambda **given: told.update(given))
    first = trained("--mlflow", "--register", "beside@champion", "--seed", "21")
    model = "models:/beside@champion"
    flags = ["--bundle", "bundles", "--state", "once", "--shadow", model, "--variant", f"next=0.2:{model}"]
    assert CliRunner().invoke(serve.command, flags, catch_exceptions=False).exit_code == 0
    trained("--mlflow", "--register", "beside@champion", "--seed", "22")
    [variant, _] = told["variants"].all
    assert bundle.load(told["shadow"]).name == bundle.load(variant.bundle).name == first["bundle"]
    assert told["bundle"] == Path("bundles")


def test_a_shadow_that_is_not_in_the_registry_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "run", lambda **_: None)
    for flags in (["--shadow", "models:/nobody@champion"], ["--variant", "a=0.2:models:/nobody@champion"]):
        result = CliRunner().invoke(serve.command, ["--state", "none", *flags])
        assert "models:/nobody@champion: " in str(result.exception)


def test_where_the_store_is_away_it_goes_on_with_what_it_has(tmp_path: Path) -> None:
    class Away:
        def fetch(self, model: str, folder: Path) -> Path:
            raise UserError("away")

    with pytest.raises(UserError, match="away"):
        Following(Away(), "a@b", tmp_path)  # type: ignore[arg-type]
    path = bundle.write(tmp_path, a_bundle(3, 4, vectors=np.zeros((3, 4), np.float32)))
    following = Following(Away(), "a@b", tmp_path)  # type: ignore[arg-type]
    following.stop()
    assert bundle.find(following.folder) == path.resolve()
