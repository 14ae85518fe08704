"""item2vec: the listings of a visit are a set, whose members are near each other whatever their order.

Barkan and Koenigstein, "Item2Vec: neural item embedding for collaborative filtering", 2016 (arXiv 1603.04259). Each
listing of a set is a centre and each other one its context (section 3), with negatives drawn by frequency to the
power of 3/4 and frequent listings thinned out: a click stays with the chance sqrt(threshold / frequency) (section 2;
here a threshold below the mean frequency counts as that). Section 3 gives two ways to let go of the order and finds
them alike: a window that holds the whole set, or a new order of each set in every epoch. This is both: a new order,
and a wide window, so that a very large set does not make a pair of every two. The mathematics is skip-gram's, and so
is the code that learns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from models.training import noise, pairs, skip_gram
from models.training.corpus import Corpus
from models.training.pairs import Sessions
from models.training.run import Floats, Run
from models.training.skip_gram import SkipGram, Tables

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Item2Vec:
    """The settings of the training."""

    dimensions: Annotated[int, Meta(ge=2, le=1024)] = 32
    epochs: Annotated[int, Meta(ge=1)] = 10
    window: Annotated[int, Meta(ge=1, le=100)] = 20
    """A context is at most so many places away in the epoch's order; all of the set where it is smaller."""
    negatives: Annotated[int, Meta(ge=1, le=1000)] = 5
    """Drawn for each pair."""
    noise_exponent: Annotated[float, Meta(ge=-1, le=1)] = 0.75
    """Negatives are drawn by frequency to this power."""
    subsampling: Annotated[float, Meta(ge=0)] = 1e-3
    """Clicks on listings of a greater share than this are dropped at random, the more the more frequent; 0: none."""
    learning_rate: Annotated[float, Meta(gt=0, le=10)] = 0.1
    loss: str = "log-sigmoid"
    regulariser: str = "none"
    regularisation: Annotated[float, Meta(ge=0)] = 0.0
    """What the regulariser weighs."""
    block: Annotated[int, Meta(ge=1)] = 1024
    """Clicks that are learned from together where autograd finds the gradient."""


def train(corpus: Corpus, settings: Item2Vec, run: Run) -> Floats:
    """Vectors for the n listings of the corpus, float32 [n, d]: of unit length, or zeros where nothing is known of one.

    Raises UserError for a loss or regulariser that isn't there.
    """
    like = msgspec.convert(settings, SkipGram, from_attributes=True)
    learn = skip_gram.learner(like, run)
    size, parts = len(corpus.listings), list(corpus.parts(pairs.PART))
    counts: Ints = np.zeros(size, np.int64)
    for span in parts:
        counts += np.bincount(sets(corpus.part(*span)).tokens, minlength=size)
    tables = Tables.begun(size, settings.dimensions, run)
    if not counts.any():
        return tables.vectors()
    drawn = noise.noise(counts, corpus.listings.market_codes, settings.noise_exponent)
    chances = pairs.chances(counts, settings.subsampling) if settings.subsampling else None

    for _ in run.epochs(settings.epochs, tables.state, tables.vectors):
        for done, place in enumerate(run.random.permutation(len(parts)).tolist()):
            members = pairs.shuffled(sets(corpus.part(*parts[place])), chances, 1, run.random)
            loss, many = learn(tables, mixed(members, run.random), drawn, like, run)
            run.step(loss, many, done + 1, len(parts))
    return tables.vectors()


def sets(part: Corpus) -> Sessions:
    """Each session's listings, once each; sessions of a single listing are left out."""
    members = np.unique(part.session * len(part.listings) + part.tokens)
    session, tokens = np.divmod(members, len(part.listings))
    lengths = np.bincount(session, minlength=part.sessions)
    large = lengths > 1
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[large])])
    return Sessions(tokens[large[session]].astype(np.int32), starts, np.full(large.sum(), -1, np.int32))


def mixed(sessions: Sessions, random: np.random.Generator) -> Sessions:
    """The same sessions, each in a new order."""
    session = np.repeat(np.arange(len(sessions.booked)), np.diff(sessions.starts))
    order = np.lexsort((random.random(len(session)), session))
    return Sessions(sessions.tokens[order], sessions.starts, sessions.booked)
