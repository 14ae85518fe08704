"""Nearest listings to a vector: one HNSW over all listings and one for each large market; where there are few, exactly.

HNSW: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable
Small World graphs", TPAMI 2020. Similarity is the dot product of unit vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from pathlib import Path

import hnswlib
import msgspec
import numpy as np
import numpy.typing as npt

from models.listings import NOTHING, Listings

LARGE = 2_000
"""A market of more listings than this has a graph of its own; fewer are compared one by one, in some tens of microseconds."""
LINKS = 16
EF_CONSTRUCTION = 200
EF, MOST_EF = 128, 2_048
"""How many listings a walk keeps in sight (hnswlib's ef): at first, and where recall takes more. Never fewer than are asked for."""
RECALL = 0.95
"""What recall@100 has to be."""
K, QUERIES = 100, 200
ALL = "index.hnsw"

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Walk(msgspec.Struct, frozen=True, kw_only=True):
    """How a graph is walked, and how much of what is nearest that finds."""

    ef: int
    recall_at_100: float
    """Of the 100 nearest to a vector, the share that is found."""


class Measured(Walk, frozen=True, kw_only=True):
    """What an index finds, against comparing all, when it was built: over all listings, and within each large market."""

    links: int
    queries: int
    """Vectors that were asked for in each graph; 0 where there is none, and what is found is exact."""
    worst_recall_at_100: float
    """The least of all graphs."""
    markets: dict[str, Walk] = {}


class Index:
    """The graphs over a bundle's vectors, float32 [n, d]. Listings without a vector (a row of zeros) are never found."""

    def __init__(self, vectors: Floats, listings: Listings, graphs: dict[int, hnswlib.Index]) -> None:
        self.vectors = vectors
        self.codes = {name: code for code, name in enumerate(listings.markets)}
        self.rows = _rows(vectors, listings)
        """By market code; NOTHING is all listings."""
        self.graphs = graphs
        self.names = {code: name for name, code in self.codes.items() if code in graphs}
        for graph in graphs.values():
            graph.set_ef(EF)

    @classmethod
    def build(cls, vectors: Floats, listings: Listings, *, threads: int = 1) -> Index:
        """Build the graphs; with one thread the same input gives the same graphs."""
        graphs = {}
        for code, rows in _large(_rows(vectors, listings)).items():
            graph = hnswlib.Index(space="ip", dim=vectors.shape[1])
            graph.init_index(
                max_elements=len(rows), ef_construction=EF_CONSTRUCTION, M=LINKS, random_seed=100
            )
            graph.add_items(vectors[rows], rows, num_threads=threads)
            graphs[code] = graph
        return cls(vectors, listings, graphs)

    @classmethod
    def load(
        cls, folder: Path, vectors: Floats, listings: Listings, measured: Measured | None = None
    ) -> Index:
        """The index that `save` wrote, walked as was `measured`. Raises OSError or RuntimeError where a file is absent or broken."""
        graphs = {}
        for code in _large(_rows(vectors, listings)):
            graph = hnswlib.Index(space="ip", dim=vectors.shape[1])
            graph.load_index(str(folder / _name(code)))
            graphs[code] = graph
        index = cls(vectors, listings, graphs)
        if measured is not None:
            for code, graph in graphs.items():
                walk = measured if code == NOTHING else measured.markets.get(index.names[code], measured)
                graph.set_ef(walk.ef)
        return index

    def save(self, folder: Path) -> None:
        """Write each graph as hnswlib does: `index.hnsw`, and `index-<market's number>.hnsw`."""
        for code, graph in self.graphs.items():
            graph.save_index(str(folder / _name(code)))

    def measure(
        self, rng: np.random.Generator, on_raise: Callable[[str], None] = lambda line: None
    ) -> Measured:
        """Measure recall@100 of each graph, and double its `ef` until it finds enough; `on_raise` is told where that is so."""
        walks = {code: self._measure(code, rng, on_raise) for code in sorted(self.graphs)}
        everything = walks.get(NOTHING, Walk(ef=EF, recall_at_100=1.0))
        return Measured(
            ef=everything.ef,
            recall_at_100=everything.recall_at_100,
            worst_recall_at_100=min((walk.recall_at_100 for walk in walks.values()), default=1.0),
            links=LINKS,
            queries=QUERIES if walks else 0,
            markets={self.names[code]: walk for code, walk in walks.items() if code != NOTHING},
        )

    def _measure(self, code: int, rng: np.random.Generator, on_raise: Callable[[str], None]) -> Walk:
        graph, rows = self.graphs[code], self.rows[code]
        queries = _queries(self.vectors, rows, rng)
        vectors = self.vectors[rows]
        # Found is what is as near as the hundredth: of equal vectors any will do.
        hundredth = [np.partition(vectors @ query, -K)[-K] - 1e-6 for query in queries]
        ef = EF
        while True:
            graph.set_ef(ef)
            hits = 0
            for query, least in zip(queries, hundredth, strict=True):
                found = self._walk(graph, query, K)
                hits += K if found is None else int(np.count_nonzero(self.vectors[found] @ query >= least))
            recall = round(hits / (K * len(queries)), 4)
            if recall >= RECALL:
                return Walk(ef=ef, recall_at_100=recall)
            where = "all listings" if code == NOTHING else f"market {self.names[code]}"
            says = f"{where}: recall@{K} is {recall:.3f} at ef {ef:,}, below {RECALL}"
            if 2 * ef > MOST_EF:
                on_raise(f"{says}, the most that is tried")
                return Walk(ef=ef, recall_at_100=recall)
            on_raise(f"{says}: trying {2 * ef:,}")
            ef *= 2

    def nearest(
        self,
        vector: npt.ArrayLike,
        k: int,
        *,
        market: str | None = None,
        exclude: Set[int] = frozenset(),
    ) -> tuple[Rows, Floats]:
        """At most `k` rows nearest to `vector`, [d], nearest first, and their similarities.

        Within `market` where one is given (an unknown market has no listings), without the rows in `exclude`.
        """
        code = NOTHING if market is None else self.codes.get(market)
        if code is None or not len(self.rows[code]) or k <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        rows = self.rows[code]
        if len(rows) == len(self.rows[NOTHING]):
            code = NOTHING
        query = np.asarray(vector, np.float32)
        wanted = min(k + len(exclude), len(rows))
        found = self._walk(self.graphs[code], query, wanted) if code in self.graphs else None
        if found is None:
            found = self._scan(rows, query, wanted)
        if exclude:
            found = found[[row not in exclude for row in found.tolist()]]
        found = found[:k]
        return found, self.vectors[found] @ query

    def _walk(self, graph: hnswlib.Index, query: Floats, k: int) -> Rows | None:
        try:
            labels, _ = graph.knn_query(query, k=k, num_threads=1)
        except RuntimeError:  # the walk met fewer than k: a graph of many equal vectors may fall apart
            return None
        return labels[0].astype(np.int64)  # type: ignore[no-any-return]

    def _scan(self, rows: Rows, query: Floats, k: int) -> Rows:
        similarities = self.vectors[rows] @ query
        if k < len(rows):
            best = np.argpartition(-similarities, k - 1)[:k]
            rows, similarities = rows[best], similarities[best]
        return rows[np.lexsort((rows, -similarities))]


def _queries(vectors: Floats, rows: Rows, rng: np.random.Generator) -> Floats:
    """float32 [QUERIES, d], like what is asked for: half are listings, half sessions, the mean of two listings."""
    first, second = rng.choice(rows, (2, QUERIES))
    second[::2] = first[::2]
    means: Floats = (vectors[first] + vectors[second]) / 2
    return means


def _name(code: int) -> str:
    return ALL if code == NOTHING else f"index-{code}.hnsw"


def _rows(vectors: Floats, listings: Listings) -> dict[int, Rows]:
    """The rows that have a vector: of all listings, and of each market."""
    codes = listings.market_codes
    has: npt.NDArray[np.bool_] = np.any(vectors, axis=1, keepdims=False)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(listings.markets) + 1))
    rows = {NOTHING: np.flatnonzero(has)}
    for code in range(len(listings.markets)):
        own = order[starts[code] : starts[code + 1]]
        rows[code] = own[has[own]]
    return rows


def _large(rows: dict[int, Rows]) -> dict[int, Rows]:
    """Those that get a graph: all listings where they are many, and each large market that is not all."""
    everything = len(rows[NOTHING])
    return {
        code: own
        for code, own in rows.items()
        if len(own) > LARGE and (code == NOTHING or len(own) < everything)
    }
