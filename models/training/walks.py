"""The click graph, and random walks on it: what is in memory grows with its edges, not with the clicks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.training.corpus import Corpus
from models.training.pairs import Sessions

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

PART = 1 << 18
"""Steps of walks that are in memory at a time."""
GONE = -1
"""Where a walk that has ended is."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A weighted graph of n listings and e edges, each listing's edges side by side."""

    keys: Ints
    """int64 [e]: from * n + to, in order."""
    starts: Ints
    """int64 [n + 1]: the edges of listing i are `starts[i]` up to `starts[i + 1]`."""
    up_to: Doubles
    """float64 [e + 1]: the weights of the edges before each."""

    @property
    def size(self) -> int:
        """n"""
        return len(self.starts) - 1

    def leaves(self, nodes: Ints) -> Bools:
        """Which of the nodes have an edge that leads on."""
        return self.starts[nodes] < self.starts[nodes + 1]

    def joined(self, ones: Ints, others: Ints) -> Bools:
        """Whether there is an edge from each of these to each of those."""
        keys = ones * self.size + others
        at = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        found: Bools = self.keys[at] == keys
        return found

    def neighbours(self, nodes: Ints, random: np.random.Generator) -> Ints:
        """A neighbour of each node, drawn by the weights of its edges; every node must have one."""
        first, last = self.starts[nodes], self.starts[nodes + 1]
        low, high = self.up_to[first], self.up_to[last]
        points = low + random.random(len(nodes)) * (high - low)
        edges = np.searchsorted(self.up_to, points, side="right") - 1
        ends: Ints = self.keys[edges.clip(first, last - 1)] % self.size
        return ends


def graph(corpus: Corpus, *, directed: bool) -> Graph:
    """How often visitors went from one listing straight to another; in either direction where it is not `directed`."""
    size = len(corpus.listings)
    keys: Ints = np.empty(0, np.int64)
    weights: Doubles = np.empty(0)
    for span in corpus.parts():
        part = corpus.part(*span)
        tokens, session = part.tokens.astype(np.int64), part.session
        kept = (session[1:] == session[:-1]) & (tokens[1:] != tokens[:-1])
        ones, others = tokens[:-1][kept], tokens[1:][kept]
        found = ones * size + others
        if not directed:
            found = np.concatenate([found, others * size + ones])
        merged = np.concatenate([keys, found])
        amounts = np.concatenate([weights, np.ones(len(found))])
        keys, place = np.unique(merged, return_inverse=True)
        weights = np.bincount(place, amounts, minlength=len(keys)).astype(np.float64)
    starts = np.searchsorted(keys, np.arange(size + 1) * size)
    return Graph(keys, starts.astype(np.int64), np.concatenate([np.zeros(1), np.cumsum(weights)]))


def walk(
    over: Graph, starts: Ints, length: int, random: np.random.Generator, p: float = 1.0, q: float = 1.0
) -> Ints:
    """A walk from each of `starts`, int64 [w, length]; GONE from where one could not go on.

    A step from v, after one from t, goes to x with a chance that is proportional to the edge's weight times a bias:
    1/p where x is t, 1 where t has an edge to x, and 1/q elsewhere (Grover and Leskovec, 2016, section 3.2.2). It is
    drawn by the weight alone, and taken with the chance bias / (greatest bias), or else drawn again: nothing need be
    laid out for each pair of edges, as the paper's tables are (rejection sampling: Yang et al., "KnightKing", SOSP 2019).
    """
    places = np.full((len(starts), length), GONE, np.int64)
    places[:, 0] = starts
    most = max(1.0, 1 / p, 1 / q)
    for step in range(1, length):
        waiting = np.flatnonzero(places[:, step - 1] != GONE)
        waiting = waiting[over.leaves(places[waiting, step - 1])]
        while len(waiting):
            drawn = over.neighbours(places[waiting, step - 1], random)
            taken: Bools = np.ones(len(waiting), np.bool_)
            if step > 1 and (p, q) != (1, 1):
                before = places[waiting, step - 2]
                bias = np.where(over.joined(before, drawn), 1.0, 1 / q)
                bias[drawn == before] = 1 / p
                taken = random.random(len(waiting)) * most < bias
            places[waiting[taken], step] = drawn[taken]
            waiting = waiting[~taken]
    return places


def walks(
    over: Graph, times: int, length: int, random: np.random.Generator, p: float = 1.0, q: float = 1.0
) -> Iterator[tuple[Sessions, float]]:
    """Walks from each listing that has an edge to go, so many `times`, in random order and as sessions; and what share
    of them is done then. Some at a time."""
    nodes = np.flatnonzero(over.leaves(np.arange(over.size)))
    order = random.permutation(np.repeat(nodes, times))
    many = max(1, PART // length)
    for first in range(0, len(order), many):
        places = walk(over, order[first : first + many], length, random, p, q)
        lengths = (places != GONE).sum(axis=1)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        tokens = places[places != GONE].astype(np.int32)
        yield (
            Sessions(tokens, starts, np.full(len(lengths), -1, np.int32)),
            min(first + many, len(order)) / len(order),
        )
