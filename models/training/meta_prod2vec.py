"""Meta-Prod2Vec: what is known of a listing is a context of its neighbours, and a centre beside it.

Vasile, Smirnova and Conneau, "Meta-Prod2Vec: product embeddings using side-information for recommendation", RecSys 2016
(arXiv 1607.07326). Listings and the values of their side information have vectors in one space, and the loss of section
3.2 has five terms,

    L(J|I) + lambda (L(M|I) + L(J|M) + L(M|M) + L(I|M))

where I is a listing, J one near it, and M the side information of the one on its own side of the bar: J|I is skip-gram,
M|I finds what is near of J's from I, J|M finds J from I's, M|M finds J's from I's, and I|M finds a listing from its
own. Of a listing of which several things are known, one is drawn anew for every pair, which is the mean over all of
them in the long run. Negatives are of the kind of what is to be found: listings or values. A listing that was never
acted on has the mean of the vectors of what is known of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Meta

from models.errors import UserError
from models.training import descent, noise, pairs, side
from models.training.corpus import Corpus
from models.training.losses import LOSSES, REGULARISERS
from models.training.noise import Noise
from models.training.run import Floats, Run
from models.training.side import NOTHING
from models.training.skip_gram import unit

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MetaProd2Vec:
    """The settings of the training."""

    dimensions: Annotated[int, Meta(ge=2, le=1024)] = 32
    epochs: Annotated[int, Meta(ge=1)] = 10
    side: str = side.FIELDS
    """What is taken of what is known of listings."""
    meta_weight: Annotated[float, Meta(ge=0)] = 0.5
    """The paper's lambda: what each of the four terms with side information weighs beside skip-gram's."""
    window: Annotated[int, Meta(ge=1, le=100)] = 5
    """A context is at most so many clicks away."""
    negatives: Annotated[int, Meta(ge=1, le=1000)] = 5
    """Drawn for each pair."""
    noise_exponent: Annotated[float, Meta(ge=-1, le=1)] = 0.75
    """Negatives are drawn by frequency to this power."""
    learning_rate: Annotated[float, Meta(gt=0, le=10)] = 0.1
    loss: str = "log-sigmoid"
    regulariser: str = "none"
    regularisation: Annotated[float, Meta(ge=0)] = 0.0
    """What the regulariser weighs."""
    block: Annotated[int, Meta(ge=1)] = 1024
    """Clicks that are learned from together."""


@dataclass(frozen=True, slots=True)
class Block:
    """Pairs of all five terms: rows of the tables, in which the V values stand behind the n listings."""

    centres: Ints
    """int64 [p]"""
    contexts: Ints
    """int64 [p, 1 + k]: what is to be found, and its negatives."""
    shares: Floats
    """float32 [p]: what each pair weighs."""


def block(
    centre: Ints,
    context: Ints,
    about: tuple[Ints, Ints],
    drawn: tuple[Noise, Noise],
    settings: MetaProd2Vec,
    random: np.random.Generator,
) -> Block:
    """The pairs of the five terms, for pairs of listings, int64 [p] each, and what is known `about` each centre and each
    context: a code or NOTHING. Negatives are `drawn` of listings and of values, for every listing n of them."""
    size, (of_centre, of_context) = len(drawn[0].low), about
    both = (of_centre != NOTHING, of_context != NOTHING)
    terms = (
        (centre, context, np.ones(len(centre), np.bool_), False),  # J|I
        (centre, of_context, both[1], True),  # M|I
        (of_centre + size, context, both[0], False),  # J|M
        (of_centre + size, of_context, both[0] & both[1], True),  # M|M
        (of_centre + size, centre, both[0], False),  # I|M
    )
    centres, contexts, shares = [], [], []
    for place, (one, other, kept, of_values) in enumerate(terms):
        wanted = other[kept]
        # The market of what is drawn from plays no part, so that any row does for the centre.
        negative = drawn[of_values].draw(wanted, settings.negatives, 0, np.zeros_like(wanted), random)
        centres.append(one[kept])
        contexts.append(np.column_stack([wanted, negative]) + size * of_values)
        shares.append(np.full(len(wanted), settings.meta_weight if place else 1, np.float32))
    return Block(np.concatenate(centres), np.concatenate(contexts), np.concatenate(shares))


def train(corpus: Corpus, settings: MetaProd2Vec, run: Run) -> Floats:
    """Vectors for the n listings of the corpus, float32 [n, d]: of unit length, zeros where nothing is known of one, not
    even side information.

    Raises UserError where nothing is known of any that was acted on, and for a loss or regulariser that isn't there.
    """
    loss = descent.named(LOSSES, "loss", settings.loss)
    regulariser = descent.named(REGULARISERS, "regulariser", settings.regulariser)
    of = side.known(corpus.listings, settings.side, "meta-prod2vec")
    counts, parts = corpus.counts, list(corpus.parts(pairs.PART))
    size, both = len(counts), len(counts) + len(of.values)
    parameters = {
        "centres": descent.random_table(run.random, both, settings.dimensions, run.device),
        "contexts": torch.zeros(both, settings.dimensions, device=run.device),
    }
    descend = descent.Adagrad(parameters, settings.learning_rate)
    if not of.counts(counts).any():
        raise UserError(
            "meta-prod2vec needs to know more of listings that were acted on than clicks, and all that is known is of"
            " others; give it with --listings FILE, or choose another method"
        )
    drawn = (
        noise.noise(counts, corpus.listings.market_codes, settings.noise_exponent),
        noise.noise(of.counts(counts), np.full(len(of.values), NOTHING, np.int32), settings.noise_exponent),
    )
    seen = (of.counts(counts) > 0)[of.codes] & (of.codes != NOTHING)

    def vectors() -> Floats:
        centres = parameters["centres"].cpu().numpy()
        made, values = centres[:size] * (counts > 0)[:, None], centres[size:]
        for row in np.flatnonzero((counts == 0) & seen.any(axis=1)).tolist():
            made[row] = values[of.codes[row, seen[row]]].mean(axis=0)
        return unit(made)

    for _ in run.epochs(settings.epochs, descend.state, vectors):
        for done, place in enumerate(run.random.permutation(len(parts)).tolist()):
            start, end = parts[place]
            read = pairs.read(corpus, start, end, 0.0, 2)
            read.booked[:] = -1
            sessions = pairs.shuffled(read, None, 1, run.random)
            for first in range(0, len(sessions.tokens), settings.block):
                last = min(first + settings.block, len(sessions.tokens))
                centre, context = pairs.positives(sessions, first, last, settings.window, run.random)
                if not len(centre):
                    continue
                about = (of.drawn(centre, run.random), of.drawn(context, run.random))
                made = block(centre, context, about, drawn, settings, run.random)
                ones = descend.rows("centres", torch.from_numpy(made.centres).to(run.device))
                others = descend.rows("contexts", torch.from_numpy(made.contexts).to(run.device))
                scores = (others @ ones[:, :, None]).squeeze(2)
                shares = torch.from_numpy(made.shares).to(run.device)
                cost = (loss(scores[:, 0], scores[:, 1:]) * shares).sum()
                held = regulariser(torch.cat([ones, others.flatten(0, 1)]))
                descend.step(cost + settings.regularisation * held)
                run.step(cost.item(), float(made.shares.sum()), done + 1, len(parts))
    return vectors()
