from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from insession.evaluate import command
from insession.similar import table
from models import bundle, listings, ranker
from models.bundle import Bundle, Floats, Training
from models.datasets.marketplace import Marketplace
from models.evaluation import similar
from models.listings import Listing
from models.training import pipeline
from tests.made import record, unit

PLACE = {"latitude": 38.7, "longitude": -9.1}


def a_bundle(vectors: list[list[float]], known: list[Listing]) -> Bundle:
    found: Floats = np.array(vectors, np.float32)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return bundle.assemble(
        listings=listings.collect(known),
        vectors=found / np.where(lengths > 0, lengths, 1),
        ranker=ranker.default(),
        training=Training(source="embeddings", data="made"),
    )


def test_shares_are_those_of_the_nearest_beside_chance() -> None:
    known = [
        Listing(listing_id=name, market=market, type=kind)
        for name, market, kind in (
            ("a", "x", "house"),
            ("b", "x", "room"),
            ("c", "y", "room"),
            ("d", "y", None),
            ("cold", "y", "room"),
        )
    ]
    made = a_bundle([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [0, 0]], known)
    found = similar.report(made, 1, np.random.default_rng(0))
    assert (found["listings"], found["with_vector"], found["n"]) == (5, 4, 4)
    # The nearest: a and b of each other, c and d of each other.
    assert found["shares"]["market"]["share"] == 1.0
    assert found["shares"]["market"]["chance"] == pytest.approx(1 / 3)
    # Of a, b and c the type is known; none is that of the nearest. By chance: 0, 1/3 and 1/3.
    assert (found["shares"]["type"]["n"], found["shares"]["type"]["share"]) == (3, 0.0)
    assert found["shares"]["type"]["chance"] == pytest.approx(2 / 9)
    assert "price_range" not in found["shares"]
    assert found["cold"]["without_vector"] == 1


def test_mean_cosines_are_those_of_all_pairs_of_a_market() -> None:
    vectors = unit(9, 4)
    markets = np.array([0, 0, 0, 0, 1, 1, 1, -1, -1])
    codes = np.array([0, 0, 1, 1, 0, 1, -1, 0, 1])
    found = similar.cosines(vectors, markets, codes, ["p", "q", "nobody"])
    for one, other in ((0, 0), (0, 1), (1, 0), (1, 1)):
        pairs = [
            float(vectors[a] @ vectors[b])
            for a in range(9)
            for b in range(9)
            if a != b and markets[a] == markets[b] >= 0 and codes[a] == one and codes[b] == other
        ]
        assert found["pq"[one]]["pq"[other]] == pytest.approx(np.mean(pairs), abs=1e-6)
    assert found.keys() == {"p", "q"}


def test_the_nearest_are_what_comparing_all_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(30, 5)
    rows = np.arange(0, 30, 2)
    queries = np.array([3, 4, 10])
    monkeypatch.setattr(similar, "CELLS", 20)
    found = similar.nearest(vectors[queries], queries, vectors, rows, 4)
    for query, near in zip(queries.tolist(), found.tolist(), strict=True):
        others = sorted(set(rows.tolist()) - {query}, key=lambda row: -float(vectors[row] @ vectors[query]))
        assert near == others[:4]


def test_cold_listings_held_out_get_the_vector_of_those_like_them() -> None:
    kinds = ["house", "room"] * 20
    known = [
        Listing(listing_id=f"l{at}", market="x", type=kind, price=10.0, **PLACE)
        for at, kind in enumerate(kinds)
    ]
    made = a_bundle([[1, 0, 0] if kind == "house" else [0, 1, 0] for kind in kinds], known)
    cold = similar.report(made, 5, np.random.default_rng(0))["cold"]
    assert (cold["held_out"], cold["held_out_reached"]) == (8, 8)
    assert cold["cosine"] == pytest.approx(1.0)
    assert cold["chance"] == pytest.approx(0.5, abs=0.1)
    assert cold["shares"]["type"]["share"] == 1.0
    nowhere = a_bundle([[1, 0], [0, 1]] * 20, [Listing(listing_id=f"l{at}") for at in range(40)])
    unreached = similar.report(nowhere, 5, np.random.default_rng(0))["cold"]
    assert (unreached["held_out_reached"], unreached["cosine"], unreached["shares"]) == (0, None, {})


def test_the_command_prints_each_bundle_and_the_same_twice(tmp_path: Path) -> None:
    market = Marketplace(3, markets=2, listings=300)
    path = record(tmp_path / "r.jsonl.zst", market.events(150))
    bundle.write(tmp_path / "known", pipeline.train(path, known=market.listings))
    bundle.write(tmp_path / "bare", pipeline.train(path))
    arguments = ["similar", "--bundle", str(tmp_path / "known"), "--bundle", str(tmp_path / "bare")]
    result = CliRunner().invoke(command, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    assert CliRunner().invoke(command, [*arguments, "--json"]).stdout == result.stdout
    report = json.loads(result.stdout)
    known, bare = report["results"]
    assert (known["name"], bare["name"]) == ("known", "bare")
    assert known["shares"]["market"]["share"] > known["shares"]["market"]["chance"]
    assert "type" not in bare["shares"]
    text = table(report)
    assert "same market" in text
    assert CliRunner().invoke(command, arguments).stdout.strip() == text
