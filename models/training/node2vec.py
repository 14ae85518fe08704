"""node2vec: skip-gram on random walks over the click graph, that stay near or go far.

Grover and Leskovec, "node2vec: scalable feature learning for networks", KDD 2016: two listings have an edge for each
time that a visitor went from one straight to the other. A walk from t to v goes on to x with a chance that is
proportional to the edge's weight times alpha (section 3.2.2): 1/p back to t, 1 to a neighbour of t, 1/q away from it.
What is near on walks is learned with skip-gram (equations 1 and 2, with negatives), by skip-gram's own code. Walks are
drawn anew in every epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from models.training import noise, skip_gram
from models.training.corpus import Corpus
from models.training.run import Floats, Run
from models.training.skip_gram import SkipGram, Tables
from models.training.walks import graph, walks


@dataclass(frozen=True, slots=True)
class Node2Vec:
    """The settings of the training."""

    dimensions: Annotated[int, Meta(ge=2, le=1024)] = 32
    epochs: Annotated[int, Meta(ge=1)] = 10
    p: Annotated[float, Meta(ge=0.05, le=20)] = 1.0
    """The greater, the seldomer a walk goes straight back."""
    q: Annotated[float, Meta(ge=0.05, le=20)] = 1.0
    """The greater, the more a walk stays around where it was; below 1 it goes outward."""
    directed: bool = False
    """Whether a walk goes only the ways that visitors went."""
    walks: Annotated[int, Meta(ge=1, le=1000)] = 2
    """From each listing in each epoch,"""
    length: Annotated[int, Meta(ge=2, le=1000)] = 20
    """of so many listings."""
    window: Annotated[int, Meta(ge=1, le=100)] = 5
    """A context is at most so many steps away."""
    negatives: Annotated[int, Meta(ge=1, le=1000)] = 5
    """Drawn for each pair."""
    noise_exponent: Annotated[float, Meta(ge=-1, le=1)] = 0.75
    """Negatives are drawn by frequency to this power."""
    learning_rate: Annotated[float, Meta(gt=0, le=10)] = 0.2
    loss: str = "log-sigmoid"
    regulariser: str = "none"
    regularisation: Annotated[float, Meta(ge=0)] = 0.0
    """What the regulariser weighs."""
    block: Annotated[int, Meta(ge=1)] = 1024
    """Clicks that are learned from together where autograd finds the gradient."""


def train(corpus: Corpus, settings: Node2Vec, run: Run) -> Floats:
    """Vectors for the n listings of the corpus, float32 [n, d]: of unit length, or zeros where nothing is known of one.

    Raises UserError for a loss or regulariser that isn't there.
    """
    like = msgspec.convert(settings, SkipGram, from_attributes=True)
    learn = skip_gram.learner(like, run)
    over = graph(corpus, directed=settings.directed)
    tables = Tables.begun(over.size, settings.dimensions, run)
    if not len(over.keys):
        return tables.vectors()
    drawn = noise.noise(corpus.counts, corpus.listings.market_codes, settings.noise_exponent)

    for _ in run.epochs(settings.epochs, tables.state, tables.vectors):
        ways = walks(over, settings.walks, settings.length, run.random, settings.p, settings.q)
        for walked, done in ways:
            loss, many = learn(tables, walked, drawn, like, run)
            run.step(loss, many, int(100 * done), 100)
    return tables.vectors()
