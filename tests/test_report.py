from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from insession.evaluate import command
from models import bundle, evaluation, listings, ranker
from models.bundle import Epoch
from models.datasets.marketplace import Marketplace
from models.evaluation import projection, report
from models.events import Search
from models.listings import Listing
from models.training import pipeline
from models.training.skip_gram import SkipGram
from tests.made import a_bundle, record, unit

MARKET = Marketplace(3, markets=2, listings=200)
EVENTS = list(MARKET.events(250))
PAGES = ("rerank", "next-click", "similar", "booked-rank")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
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


@pytest.fixture(scope="module")
def pages(folder: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The page of each command, and what it prints."""
    recording, bundles = folder / "r.jsonl.zst", ("--bundle", folder / "bundles")
    only = ("--only", "popularity", "--only", "bundles")
    arguments: dict[str, tuple[object, ...]] = {
        "rerank": (recording, *bundles, "--from", MIDDLE),
        "next-click": ("--train", recording, "--test", recording, "--split", MIDDLE, *bundles, *only),
        "similar": bundles,
        "booked-rank": (recording, *bundles, "--from", MIDDLE),
    }
    made = {}
    for name in PAGES:
        page = folder / f"{name}.html"
        result = run(name, *arguments[name], "--report", page, "--json")
        assert result.exit_code == 0, result.output
        made[name] = page, msgspec.json.decode(result.stdout)
    return made


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_needs_nothing_else_and_has_the_curve_and_the_maps(
    pages: dict[str, tuple[Path, dict[str, Any]]], name: str
) -> None:
    page, _ = pages[name]
    seen = _Page(page)
    assert not seen.open
    assert all(address.startswith(("#", "data:")) for address in seen.addresses)
    assert "url(http" not in page.read_text()
    for title in (
        "Loss by epoch",
        "On what was held out",
        "The embeddings by market",
        "The embeddings by type",
        "The embeddings by price",
    ):
        assert title in seen.texts
    assert {"Lisbon", "Barcelona"} <= set(seen.texts)


def test_rerank_writes_a_page_with_its_table(pages: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    page, report = pages["rerank"]
    assert {row["name"] for row in report["results"]} == {"shown", "seen-first", "counters", "insession"}
    texts = _Page(page).texts
    for row in report["results"]:
        assert f"{row['mrr']:.3f}" in texts


def test_next_click_writes_a_page_with_its_metrics(pages: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    page, report = pages["next-click"]
    texts = _Page(page).texts
    for row in report["results"]:
        assert row["name"] in texts
        assert f"{row['ndcg@10']:.3f}" in texts
    assert "HR@20" in texts


def test_booked_rank_writes_a_page_with_the_curve_of_every_order(
    pages: dict[str, tuple[Path, dict[str, Any]]],
) -> None:
    page, report = pages["booked-rank"]
    texts = _Page(page).texts
    assert "Where the listing stands that is booked in the end" in texts
    assert [row["name"] for row in report["results"]] == ["shown", "bundles"]
    for row in report["results"]:
        assert texts.count(row["name"]) >= 4  # in the legend, the other chart and both tables
        for point in row["curve"]:
            low, high = point["ci"]
            assert f"{point['mean_rank']:.2f} ({low:.1f} to {high:.1f})" in texts
    assert f"{report['results'][1]['versus']['p']:.4f}" in texts


def test_similar_writes_a_page_with_shares_beside_chance_cosines_and_cold_listings(
    pages: dict[str, tuple[Path, dict[str, Any]]],
) -> None:
    page, report = pages["similar"]
    texts = _Page(page).texts
    [row] = report["results"]
    for shares in (row["shares"], row["cold"]["shares"]):
        assert set(shares) == {"market", "type", "price_range"}
        for share in shares.values():
            assert {f"{share['share']:.3f}", f"{share['chance']:.3f}"} <= set(texts)
    assert {"Same price range", "Cold listings: same price range", "bundles: mean cosine by type"} <= set(
        texts
    )
    for cells in row["cosines"]["type"].values():
        assert {f"{cell:.3f}" for cell in cells.values()} <= set(texts)
    assert f"{row['cold']['cosine']:.3f}" in texts
    shades = [float(shade) for shade in re.findall(r"--shade: ([\d.]+)", page.read_text())]
    assert (min(shades), max(shades)) == (0.0, 1.0)


def complaints(page: Path, profile: Path, width: int) -> list[str]:
    """What a browser of that width says on its console of a page, also where it would have to be scrolled sideways."""
    head, rest = page.read_text().split("<meta", 1)
    wide = 'document.documentElement.scrollWidth > innerWidth && console.error("wider than the window")'
    page.with_suffix(".seen.html").write_text(f"{head}<script>onload = () => {wide}</script><meta{rest}")
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--dump-dom",
    ]
    command += [f"--user-data-dir={profile}", f"--window-size={width},900"]
    done = subprocess.run(
        [*command, page.with_suffix(".seen.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "</html>" in done.stdout
    return re.findall(r":CONSOLE.*", done.stderr)


@pytest.mark.skipif(not BROWSER, reason="there is no Chromium or Chrome to open pages with")
def test_a_browser_opens_every_page_without_a_complaint(
    pages: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    for page, _ in pages.values():
        for width in (500, 1280):
            assert complaints(page, tmp_path, width) == []


@pytest.mark.skipif(not BROWSER, reason="there is no Chromium or Chrome to open pages with")
def test_a_page_with_something_wrong_is_found_out(tmp_path: Path) -> None:
    report.write(tmp_path / "r.html", report.Report("t", "s"))
    content = (tmp_path / "r.html").read_text()
    for more in ('<img src="https://localhost/a.png">', "<script>nothing()</script>", "<pre>" + "wide" * 500):
        (tmp_path / "r.html").write_text(content.replace("</main>", f"{more}</main>"))
        assert complaints(tmp_path / "r.html", tmp_path / "profile", 500)


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


def test_listings_of_one_price_and_no_two_of_a_market_have_a_page_of_what_is_similar(tmp_path: Path) -> None:
    known = [Listing(listing_id=f"l{at}", market=f"m{at}", type="house", price=100.0) for at in range(6)]
    told = bundle.Training(source="embeddings", data="made")
    made = bundle.assemble(
        listings=listings.collect(known), vectors=unit(6, 4), ranker=ranker.default(), training=told
    )
    bundle.write(tmp_path / "bundles", made)
    bundle.write(tmp_path / "bare", a_bundle(vectors=unit(6, 4)))
    flags = ("--bundle", tmp_path / "bundles", "--bundle", tmp_path / "bare", "--report", tmp_path / "r.html")
    result = run("similar", *flags, "--json")
    assert result.exit_code == 0, result.output
    assert "The embeddings by price" in _Page(tmp_path / "r.html").texts


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
