"""Content2vec: a listing's text, its attributes and what was done with it, joined into one vector.

Nedelec, Smirnova and Vasile, "Content2Vec: specializing joint representations of product images and text for the task
of product recommendation", 2016 (arXiv 1611.09534). Each module makes a vector of a listing: of the words of its
text, of its attributes (where the paper has its image), and of the sessions that it stands in (Prod2Vec). Their
concatenation x goes through a residual unit, y = x + F(x), as of He et al., "Deep residual learning for image
recognition", CVPR 2016, with F of two layers. Two listings belong together with the probability sigmoid(alpha
cos(y_a, y_b) + beta); that is fitted to pairs of one session by negative sampling, all modules together.

So that listings without clicks get a vector from content alone, the collaborative vector of some of the listings
is left out while learning: Volkovs, Yu and Poutanen, "DropoutNet: addressing cold start in recommender systems", NIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from msgspec import Meta
from torch import Tensor
from torch.nn.functional import normalize

from models.errors import UserError
from models.listings import Listings
from models.training import bags, descent
from models.training.bags import Bags
from models.training.corpus import Corpus
from models.training.descent import Adagrad
from models.training.losses import LOSSES, NEVER, REGULARISERS
from models.training.neighbours import pairs
from models.training.noise import Unigram
from models.training.run import Floats, Run
from models.training.skip_gram import unit


@dataclass(frozen=True, slots=True)
class Content2Vec:
    """The settings of the training."""

    text: str = "text"
    """The attribute whose words are read; empty: there is no text."""
    dimensions: Annotated[int, Meta(ge=4, le=1024)] = 32
    """A quarter of them each for text and attributes, the others for the collaborative module."""
    epochs: Annotated[int, Meta(ge=1)] = 15
    window: Annotated[int, Meta(ge=1, le=100)] = 5
    loss: str = "log-sigmoid"
    """One of LOSSES."""
    negatives: Annotated[int, Meta(ge=1, le=1000)] = 5
    """Listings drawn for each pair."""
    noise_exponent: Annotated[float, Meta(ge=-1, le=1)] = 0.75
    """Negatives are drawn by frequency to this power."""
    left_out: Annotated[float, Meta(ge=0, lt=1)] = 0.3
    """How often a listing's collaborative vector is left out of a block."""
    regulariser: str = "l2"
    """One of REGULARISERS, of the collaborative rows that a block has,"""
    regularisation: Annotated[float, Meta(ge=0)] = 0.001
    """and what it weighs."""
    learning_rate: Annotated[float, Meta(gt=0, le=10)] = 0.03
    block: Annotated[int, Meta(ge=1)] = 1024
    """Pairs in a step."""


def joined(text: Tensor, attributes: Tensor, collaborative: Tensor, inner: Tensor, outer: Tensor) -> Tensor:
    """The residual unit: of the modules' vectors, [r, a], [r, b] and [r, c], y = x + relu(x W0) W1, [r, a + b + c]."""
    together = torch.cat([text, attributes, collaborative], dim=1)
    return together + (together @ inner).relu() @ outer


def train(corpus: Corpus, settings: Content2Vec, run: Run) -> Floats:
    """Vectors for the n listings of the corpus, float32 [n, d]: of unit length; from content alone for those that never
    stand in it, and zeros for those of them of which nothing is said.

    Raises UserError where nothing is said of the listings, or none has the text.
    """
    loss = descent.named(LOSSES, "loss", settings.loss)
    regulariser = descent.named(REGULARISERS, "regulariser", settings.regulariser)
    words, values = _content(settings, corpus.listings)
    random, device, counts = run.random, run.device, corpus.counts
    noise, width, quarter = (
        Unigram(counts, settings.noise_exponent),
        settings.dimensions,
        settings.dimensions // 4,
    )
    scale = (3 / width) ** 0.5
    parameters = {
        "words": descent.random_table(random, max(1, len(words.names)), quarter, device),
        "values": descent.random_table(random, max(1, len(values.names)), quarter, device),
        "table": descent.random_table(random, len(counts), width - 2 * quarter, device),
        "inner": torch.from_numpy(random.uniform(-scale, scale, (width, width)).astype(np.float32)).to(
            device
        ),
        "outer": torch.zeros(width, width, device=device),
        "alpha": torch.full((), 5.0, device=device),
        "beta": torch.zeros((), device=device),
    }
    descend = Adagrad(parameters, settings.learning_rate)

    def vectors() -> Floats:
        every = np.arange(len(counts))
        own = parameters["table"] * torch.from_numpy(counts > 0).to(device)[:, None]
        text, attributes = words.means(parameters["words"], every), values.means(parameters["values"], every)
        made = joined(text, attributes, own, parameters["inner"], parameters["outer"])
        return unit(made.cpu().numpy())

    for _ in run.epochs(settings.epochs, descend.state, vectors):
        for left, right, done in pairs(corpus, settings.window, settings.block, random):
            drawn = noise.draw(random, len(left), settings.negatives)
            rows, place = np.unique(np.concatenate([left, right, drawn.reshape(-1)]), return_inverse=True)
            own = descend.rows("table", torch.from_numpy(rows).to(device))
            kept = torch.from_numpy(random.random(len(rows)) >= settings.left_out).to(device)
            text = words.means(descend.whole("words"), rows)
            attributes = values.means(descend.whole("values"), rows)
            inner, outer = descend.whole("inner"), descend.whole("outer")
            made = normalize(joined(text, attributes, own * kept[:, None], inner, outer))
            centre, near, far = _parted(made, torch.from_numpy(place).to(device), len(left))
            alpha, beta = descend.whole("alpha"), descend.whole("beta")
            positive = alpha * (centre * near).sum(dim=1) + beta
            negative = alpha * (far @ centre[:, :, None]).squeeze(2) + beta
            same = torch.from_numpy((drawn == left[:, None]) | (drawn == right[:, None])).to(device)
            value = loss(positive, negative.masked_fill(same, NEVER)).sum()
            descend.step(value + settings.regularisation * regulariser(own))
            run.step(value.item(), len(left), done, len(corpus.tokens))
    return vectors()


def _parted(made: Tensor, place: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The vectors of a block's centres [b, d], of those near them [b, d], and of the negatives [b, k, d]."""
    return (
        made[place[:size]],
        made[place[size : 2 * size]],
        made[place[2 * size :]].reshape(size, -1, made.shape[1]),
    )


def _content(settings: Content2Vec, listings: Listings) -> tuple[Bags, Bags]:
    """The words and the values of the listings."""
    words = bags.words(listings, settings.text)
    values = bags.values(listings, settings.text)
    if settings.text and not words.names:
        texts = sorted({name for row in range(len(listings)) for name in listings.attributes(row)})
        has = f"they have {', '.join(texts)}" if texts else "they have no attributes: give --listings FILE"
        raise UserError(
            f"content2vec needs a text of each listing, and no two have a word in common in an attribute"
            f" `{settings.text}`; {has}; --set text=NAME names another, --set text= leaves texts out"
        )
    if not words.names and not values.names:
        raise UserError(
            "content2vec needs what is said of listings (market, type, price, attributes), and nothing is: give"
            " --listings FILE"
        )
    return words, values
