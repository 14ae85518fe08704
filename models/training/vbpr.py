"""Visual Bayesian personalised ranking: factors of what was done, and factors of what listings look like.

He and McAuley, "VBPR: visual Bayesian personalized ranking from implicit feedback", AAAI 2016. The vectors may as
well be of texts. What a user thinks of a listing is beta_i + gamma_u . gamma_i + theta_u . (E f_i) + beta' . f_i,
where f_i is the listing's given vector and E, beta' are learned, fitted by BPR (what is the same for all listings of
a user falls out of it).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from msgspec import Meta
from torch import Tensor

from models.errors import UserError
from models.listings import Listings
from models.training import descent, given_vectors
from models.training.corpus import Corpus
from models.training.interactions import Interactions, Rows
from models.training.losses import LOSSES, NEVER, REGULARISERS
from models.training.noise import Unigram
from models.training.run import Floats, Run, fingerprint
from models.training.skip_gram import unit


@dataclass(frozen=True, slots=True)
class Vbpr:
    """The settings of the training."""

    vectors: str = ""
    """A file of the listings' vectors: parquet, npz or word2vec's text,"""
    attribute: str = ""
    """or an attribute of the listings that holds the numbers."""
    dimensions: Annotated[int, Meta(ge=4, le=1024)] = 32
    """Half of them, gamma, are of what was done, half of them, E f, of the given vectors."""
    epochs: Annotated[int, Meta(ge=1)] = 20
    rows: Rows = "user"
    """Whose vectors stand beside the listings': each session's, or each user's."""
    loss: str = "bpr"
    """One of LOSSES."""
    negatives: Annotated[int, Meta(ge=1, le=1000)] = 5
    """Listings not acted on, drawn for each that was."""
    noise_exponent: Annotated[float, Meta(ge=-1, le=1)] = 0.5
    """Negatives are drawn by frequency to this power."""
    regulariser: str = "l2"
    """One of REGULARISERS, of the rows that an example has,"""
    regularisation: Annotated[float, Meta(ge=0)] = 0.01
    """and what it weighs."""
    learning_rate: Annotated[float, Meta(gt=0, le=10)] = 0.01
    block: Annotated[int, Meta(ge=1)] = 1024
    """Examples in a step."""


def train(corpus: Corpus, settings: Vbpr, run: Run) -> Floats:
    """Vectors for the n listings of the corpus, float32 [n, d]: [gamma_i; E f_i] at length one. A listing that never
    stands in it has E f_i alone, and zeros where it has no f_i.

    Raises UserError where no vectors are given.
    """
    features = _features(settings, corpus.listings)
    run.what = fingerprint(run.what, features.tobytes())
    loss = descent.named(LOSSES, "loss", settings.loss)
    regulariser = descent.named(REGULARISERS, "regulariser", settings.regulariser)
    random, device, counts = run.random, run.device, corpus.counts
    matrix, noise = Interactions(corpus, settings.rows), Unigram(counts, settings.noise_exponent)
    seen = torch.from_numpy(features).to(device)
    width = settings.dimensions // 2
    parameters = {
        "gamma.rows": descent.random_table(random, matrix.rows, settings.dimensions - width, device),
        "gamma": descent.random_table(random, len(counts), settings.dimensions - width, device),
        "theta.rows": descent.random_table(random, matrix.rows, width, device),
        "E": descent.random_table(random, features.shape[1], width, device),
        "beta": torch.zeros(len(counts), 1, device=device),
        "beta'": torch.zeros(features.shape[1], device=device),
    }
    descend = descent.Adagrad(parameters, settings.learning_rate)

    def vectors() -> Floats:
        gamma = parameters["gamma"].cpu().numpy() * (counts > 0)[:, None]
        return unit(np.concatenate([gamma, (seen @ parameters["E"]).cpu().numpy()], axis=1))

    for _ in run.epochs(settings.epochs, descend.state, vectors):
        done = 0
        for block in matrix.blocks(settings.block, random):
            drawn = noise.draw(random, len(block.rows), settings.negatives)
            who = torch.from_numpy(block.rows).to(device)
            what = torch.from_numpy(np.column_stack([block.listings, drawn])).to(device)
            acted = torch.from_numpy(block.acted(drawn)).to(device)
            gamma_u, theta_u = descend.rows("gamma.rows", who), descend.rows("theta.rows", who)
            gamma_i, beta = descend.rows("gamma", what), descend.rows("beta", what).squeeze(2)
            look, global_look = seen[what], descend.whole("beta'")
            projection = descend.whole("E")
            # theta_u . (E f_i) = (E' theta_u) . f_i: one product a row instead of one a listing.
            scores = beta + _dot(gamma_u, gamma_i) + _dot(theta_u @ projection.T, look) + look @ global_look
            value = loss(scores[:, 0], scores[:, 1:].masked_fill(acted, NEVER)).sum()
            small = regulariser(gamma_u) + regulariser(theta_u) + regulariser(gamma_i) + regulariser(beta)
            descend.step(value + settings.regularisation * small)
            done += len(block.rows)
            run.step(value.item(), len(block.rows), done, matrix.total)
    return vectors()


def _dot(rows: Tensor, others: Tensor) -> Tensor:
    """Of rows [b, d] with each of their others, [b, k, d]: [b, k]."""
    return (others @ rows[:, :, None]).squeeze(2)


def _features(settings: Vbpr, listings: Listings) -> Floats:
    if settings.vectors and settings.attribute:
        raise UserError("vbpr takes `vectors` or `attribute`, not both")
    if settings.vectors:
        return given_vectors.of_file(Path(settings.vectors), listings)
    if settings.attribute:
        return given_vectors.of_attribute(settings.attribute, listings)
    raise UserError(
        "vbpr needs a vector of an image or a text of each listing: give --set vectors=FILE (parquet, npz or word2vec"
        " text, by listing id), or --set attribute=NAME of an attribute that holds numbers"
    )
