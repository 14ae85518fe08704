from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from insession import tracking, train
from insession.tracking import Following, Registry
from models import bundle
from models.datasets.marketplace import Marketplace
from models.errors import UserError
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
