from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models import index, listings
from models.bundle import Floats
from models.index import LARGE, Index
from models.listings import NOTHING, Listing, Listings
from tests.made import unit


def named(markets: list[str | None]) -> Listings:
    return listings.collect(
        Listing(listing_id=f"l{row}", market=market) for row, market in enumerate(markets)
    )


def brute(vectors: Floats, query: Floats, k: int, rows: np.ndarray) -> list[int]:
    similarities = vectors[rows] @ query
    return [int(row) for row in rows[np.argsort(-similarities, kind="stable")[:k]]]


@pytest.mark.parametrize("size", [10, 1_000, 6_000])
def test_recall_at_20_against_brute_force_is_at_least_95_percent(size: int) -> None:
    vectors = unit(size, 16, seed=1)
    made = Index.build(vectors, named([None] * size))
    k = min(20, size)
    hits = 0
    for query in unit(50, 16, seed=2):
        rows, similarities = made.nearest(query, 20)
        assert len(rows) == len(set(rows.tolist())) == k
        assert np.all(np.diff(similarities) <= 1e-6)
        np.testing.assert_allclose(similarities, vectors[rows] @ query, atol=1e-5)
        hits += len(set(rows.tolist()) & set(brute(vectors, query, k, np.arange(size))))
    assert hits / (50 * k) >= 0.95


@pytest.mark.parametrize(("size", "dimensions"), [(300, 16), (LARGE + 1, 8), (6_000, 16), (12_000, 24)])
def test_what_is_measured_is_what_a_naive_count_gives_and_enough(size: int, dimensions: int) -> None:
    vectors = unit(size, dimensions, seed=1)
    made = Index.build(vectors, named([None] * size))
    measured = made.measure(np.random.default_rng(1))
    assert measured.recall_at_100 == measured.worst_recall_at_100 >= index.RECALL
    assert measured.queries == (0 if size <= LARGE else index.QUERIES)
    # As sessions are: the mean of two.
    queries = (unit(100, dimensions, seed=5) + unit(100, dimensions, seed=6)) / 2
    for k in (100, 1_000):
        nearest = min(k, size)
        hits = sum(
            len(set(made.nearest(query, k)[0].tolist()) & set(brute(vectors, query, k, np.arange(size))))
            for query in queries
        )
        recall = hits / (100 * nearest)
        assert recall >= index.RECALL
        if k == 100:
            assert recall == pytest.approx(measured.recall_at_100, abs=0.02)


def test_where_too_little_is_found_ef_is_doubled_and_the_build_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = 3 * LARGE
    vectors = unit(size, 32, seed=1)
    made_listings = named(["large"] * (2 * LARGE) + ["small"] * LARGE)
    # hnswlib keeps at least as many in sight as are asked for, so that ef matters only above 100.
    monkeypatch.setattr(index, "EF", 64)
    monkeypatch.setattr(index, "LINKS", 4)
    said: list[str] = []
    made = Index.build(vectors, made_listings)
    measured = made.measure(np.random.default_rng(1), said.append)
    assert measured.ef > 128
    assert measured.recall_at_100 >= index.RECALL
    assert set(measured.markets) == {"large"}
    assert measured.markets["large"].recall_at_100 >= index.RECALL
    assert measured.worst_recall_at_100 == min(
        measured.recall_at_100, measured.markets["large"].recall_at_100
    )
    assert said[0].startswith("all listings: recall@100 is 0.")
    assert said[0].endswith("at ef 64, below 0.95: trying 128")
    assert any(line.startswith("market large: ") for line in said)
    assert made.graphs[NOTHING].ef == measured.ef
    assert made.graphs[0].ef == measured.markets["large"].ef

    monkeypatch.setattr(index, "MOST_EF", 100)
    said.clear()
    poor = Index.build(vectors, made_listings).measure(np.random.default_rng(1), said.append)
    assert poor.ef == 64
    assert poor.worst_recall_at_100 < index.RECALL
    assert said[0].endswith("below 0.95, the most that is tried")


def test_equal_seeds_measure_alike() -> None:
    made = Index.build(unit(LARGE + 1, 8), named([None] * (LARGE + 1)))
    one, other = (made.measure(np.random.default_rng(3)) for _ in range(2))
    assert one == other


def test_a_small_market_is_exact_and_a_large_one_has_a_graph_of_its_own() -> None:
    size = LARGE * 2
    markets: list[str | None] = ["small" if row % 40 == 0 else "large" for row in range(size)]
    vectors, made_listings = unit(size, 16), named(markets)
    made = Index.build(vectors, made_listings)
    assert len(made.graphs) == 2
    small, large = (
        np.array([row for row in range(size) if markets[row] == name]) for name in ("small", "large")
    )
    hits = 0
    for query in unit(20, 16, seed=3):
        assert made.nearest(query, 7, market="small")[0].tolist() == brute(vectors, query, 7, small)
        rows = made.nearest(query, 10, market="large")[0].tolist()
        assert {markets[row] for row in rows} == {"large"}
        hits += len(set(rows) & set(brute(vectors, query, 10, large)))
    assert hits >= 190


def test_excluded_rows_are_replaced_by_the_next_nearest() -> None:
    vectors = unit(300, 8)
    made = Index.build(vectors, named(["m"] * 300))
    query = vectors[5]
    best = brute(vectors, query, 12, np.arange(300))
    for market in (None, "m"):
        assert made.nearest(query, 5, market=market, exclude=set(best[:7]))[0].tolist() == best[7:12]


def test_more_than_there_are_gives_all_and_an_unknown_market_none() -> None:
    made = Index.build(unit(6, 4), named(["m", "m", None, None, None, None]))
    assert len(made.nearest(np.ones(4), 100)[0]) == 6
    assert sorted(made.nearest(np.ones(4), 100, market="m")[0].tolist()) == [0, 1]
    assert len(made.nearest(np.ones(4), 100, market="elsewhere")[0]) == 0
    assert len(made.nearest(np.ones(4), 0)[0]) == 0


def test_listings_without_a_vector_are_never_found() -> None:
    vectors = unit(30, 4)
    vectors[10:] = 0
    made = Index.build(vectors, named(["m"] * 30))
    assert sorted(made.nearest(np.ones(4), 30)[0].tolist()) == list(range(10))
    assert sorted(made.nearest(np.ones(4), 30, market="m")[0].tolist()) == list(range(10))
    assert len(Index.build(np.zeros((3, 4), np.float32), named([None] * 3)).nearest(np.ones(4), 3)[0]) == 0


def test_equal_vectors_are_all_found() -> None:
    vectors = np.tile(unit(1, 8), (LARGE + 1, 1))
    made = Index.build(vectors, named([None] * (LARGE + 1)))
    assert made.measure(np.random.default_rng(1)).recall_at_100 == 1
    assert len(made.nearest(vectors[0], 100)[0]) == 100


def test_what_was_saved_answers_alike_and_one_thread_gives_the_same_bytes(tmp_path: Path) -> None:
    size = LARGE + 100
    vectors = unit(size, 8)
    made_listings = named(["m"] * (size - 10) + [None] * 10)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Index.build(vectors, made_listings).save(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == [f"index-{0}.hnsw", index.ALL]
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)
    loaded, built = Index.load(tmp_path / "one", vectors, made_listings), Index.build(vectors, made_listings)
    for query in unit(10, 8, seed=4):
        assert (
            loaded.nearest(query, 10, market="m")[0].tolist()
            == built.nearest(query, 10, market="m")[0].tolist()
        )
