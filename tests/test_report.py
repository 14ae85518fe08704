from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from insession.evaluate import command
from models import bundle, evaluation
from models.bundle import Epoch
from models.datasets.marketplace import Marketplace
from models.evaluation import projection, report
from models.events import Search
from models.training import pipeline
from models.training.skip_gram import SkipGram
from tests.made import a_bundle, record, unit

MARKET = Marketplace(3, markets=2, listings=200)
EVENTS = list(MARKET.events(250))
MIDDLE = sorted(event.timestamp for event in EVENTS if isinstance(event, Search))[-80]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("report")
    path = record(made / "r.jsonl.zst", EVENTS)
    quick = SkipGram(dimensions=8, epochs=2)
    trained = pipeline.train(
        path, known=MARKET.listings, until=MIDDLE, method="skip-gram", settings=quick, validation=0.2
    )
    bundle.write(made / "bundles", trained)
    return made


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


class _Page(HTMLParser):
    """What a browser would see of it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        names = ("src", "href", "xlink:href")
        self.addresses += [value or "" for name, value in attrs if name in names]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = ("src", "href", "xlink:href")
        self.addresses += [value or "" for name, value in attrs if name in names]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_rerank_writes_a_page_with_its_table_its_charts_the_curve_and_the_maps(folder: Path) -> None:
    page = folder / "rerank.html"
    arguments = ("rerank", folder / "r.jsonl.zst", "--bundle", folder / "bundles", "--from", MIDDLE)
    result = run(*arguments, "--report", page, "--json")
    assert result.exit_code == 0
    seen = _Page(page)
    assert not seen.open
    assert all(address.startswith(("#", "data:")) for address in seen.addresses)
    assert "url(http" not in page.read_text()
    rows = msgspec.json.decode(result.stdout)["results"]
    assert {row["name"] for row in rows} == {"shown", "seen-first", "counters", "insession"}
    for row in rows:
        assert f"{row['mrr']:.3f}" in seen.texts
    for title in (
        "Loss by epoch",
        "On what was held out",
        "The embeddings by market",
        "The embeddings by price",
    ):
        assert title in seen.texts
    assert {"Lisbon", "Barcelona"} <= set(seen.texts)


def test_next_click_writes_a_page_too(folder: Path) -> None:
    page = folder / "next.html"
    flags = ("--train", folder / "r.jsonl.zst", "--test", folder / "r.jsonl.zst", "--split", MIDDLE)
    result = run("next-click", *flags, "--only", "popularity", "--only", "bundles", "--bundle", folder / "bundles",
                 "--report", page, "--json")  # fmt: skip
    assert result.exit_code == 0
    seen = _Page(page)
    for row in msgspec.json.decode(result.stdout)["results"]:
        assert row["name"] in seen.texts
        assert f"{row['ndcg@10']:.3f}" in seen.texts
    assert "HR@20" in seen.texts


def test_the_same_run_writes_the_same_page(folder: Path) -> None:
    pages = []
    for name in ("one.html", "two.html"):
        run("rerank", folder / "r.jsonl.zst", "--bundle", folder / "bundles", "--from", MIDDLE,
            "--report", folder / name)  # fmt: skip
        pages.append((folder / name).read_bytes())
    assert pages[0] == pages[1]


def test_a_page_that_can_not_be_written_is_refused_before_anything_is_measured(folder: Path) -> None:
    arguments = ("rerank", folder / "r.jsonl.zst", "--bundle", folder / "bundles")
    result = CliRunner().invoke(command, [*map(str, arguments), "--report", str(folder / "no" / "r.html")])
    assert "there is no folder" in str(result.exception)


def test_without_what_draws_it_says_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("report", "charts"):
        monkeypatch.delitem(sys.modules, f"models.evaluation.{name}", raising=False)
        monkeypatch.delattr(evaluation, name, raising=False)
    arguments = ("rerank", folder / "r.jsonl.zst", "--bundle", folder / "bundles", "--report", "r.html")
    result = CliRunner().invoke(command, [*map(str, arguments)])
    assert "--report needs matplotlib: pip install 'insession[evaluate]'" in str(result.exception)


def test_names_in_the_data_can_not_become_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    made = a_bundle(20, 8, markets=[evil] * 20)
    report.write(tmp_path / "r.html", report.Report(evil, evil, [evil], bundles={evil: made}))
    assert "<script" not in (tmp_path / "r.html").read_text()


def test_a_bundle_of_which_nothing_is_known_is_shown_too(tmp_path: Path) -> None:
    empty = a_bundle(vectors=np.zeros((3, 4), np.float32))
    few = a_bundle(3, 4)
    report.write(tmp_path / "r.html", report.Report("t", "s", bundles={"empty": empty, "few": few}))
    assert {"empty", "few"} <= set(_Page(tmp_path / "r.html").texts)


def test_what_is_near_is_near_on_the_map_and_only_some_of_many_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups = np.repeat(unit(3, 16, seed=1), 30, axis=0) + 0.05 * unit(90, 16, seed=2)
    vectors = (groups / np.linalg.norm(groups, axis=1, keepdims=True)).astype(np.float32)
    vectors[7] = 0
    rows, places = projection.flat(vectors, np.random.default_rng(0))
    assert 7 not in rows
    assert len(rows) == 89
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (rows[distances.argmin(axis=1)] // 30 == rows // 30).mean() > 0.95
    monkeypatch.setattr(projection, "MOST", 40)
    assert len(projection.flat(vectors, np.random.default_rng(0))[0]) == 40


def test_a_curve_without_validation_has_no_chart_of_it(tmp_path: Path) -> None:
    made = a_bundle(5, 4)
    training = msgspec.structs.replace(made.manifest.training, curve=[Epoch(1.0), Epoch(0.5)])
    object.__setattr__(made, "manifest", msgspec.structs.replace(made.manifest, training=training))
    report.write(tmp_path / "r.html", report.Report("t", "s", bundles={"b": made}))
    texts = _Page(tmp_path / "r.html").texts
    assert "Loss by epoch" in texts
    assert "On what was held out" not in texts
