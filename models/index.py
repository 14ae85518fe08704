"""Nearest listings to a vector: one HNSW over all listings and one for each large market; small markets exactly.

HNSW: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable
Small World graphs", TPAMI 2020. Similarity is the dot product of unit vectors.
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

import hnswlib
import numpy as np
import numpy.typing as npt

from models.listings import NOTHING, Listings

LARGE = 2_000
"""A market of more listings than this has a graph of its own; fewer are compared one by one, in some tens of microseconds."""
LINKS = 16
EF_CONSTRUCTION = 200
EF = 128
ALL = "index.hnsw"

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Index:
    """The graphs over a bundle's vectors, float32 [n, d]. Listings without a vector (a row of zeros) are never found."""

    def __init__(self, vectors: Floats, listings: Listings, graphs: dict[int, hnswlib.Index]) -> None:
        self.vectors = vectors
        self.codes = {name: code for code, name in enumerate(listings.markets)}
        self.rows = _rows(vectors, listings)
        """By market code; NOTHING is all listings."""
        self.graphs = graphs
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
    def load(cls, folder: Path, vectors: Floats, listings: Listings) -> Index:
        """The index that `save` wrote. Raises OSError or RuntimeError where a file is absent or broken."""
        graphs = {}
        for code in _large(_rows(vectors, listings)):
            graph = hnswlib.Index(space="ip", dim=vectors.shape[1])
            graph.load_index(str(folder / _name(code)))
            graphs[code] = graph
        return cls(vectors, listings, graphs)

    def save(self, folder: Path) -> None:
        """Write each graph as hnswlib does: `index.hnsw`, and `index-<market's number>.hnsw`."""
        for code, graph in self.graphs.items():
            graph.save_index(str(folder / _name(code)))

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
    """Those that get a graph: all listings, and each large market that is not all."""
    everything = len(rows[NOTHING])
    return {
        code: own
        for code, own in rows.items()
        if (code == NOTHING and everything) or LARGE < len(own) < everything
    }
