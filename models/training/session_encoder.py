"""Listing vectors and a session encoder, learned together so that their product says what is clicked next.

A session's vector is a sum over its steps: each adds its listing's own vector, times a weight for each dimension and
age in steps, times what such an action weighs; and there is a constant vector to start from, which stands for what is
popular now. So there is one vector for each listing, and one that was never trained on acts in a session all the same.

1. Vectors start from the click graph. Most of their dimensions are a few steps of diffusion of random vectors over the
   co-occurrences, normalised on both sides and made orthogonal after each step (subspace iteration that is stopped
   early: Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 2011, algorithm 4.4; for
   embeddings: Chen et al., "Fast and accurate network embeddings via very sparse random projection", CIKM 2019).
   They say what a listing is near to, all that little data can say.
2. The others are random, and so tell each listing from its neighbours. Their weights by age learn what the first ones
   can't say: that a listing just clicked is not clicked again at once, or is, and that visitors return to earlier ones.
3. All is trained by softmax over the listings at each step of each session (Hidasi and Karatzoglou, "Recurrent neural
   networks with top-k gains for session-based recommendations", CIKM 2018, cross-entropy), sampled, with the
   correction for how often a negative is drawn (Bengio and Senecal, 2008), on vectors of length one (Gupta et al.,
   "NISER", 2019). Recent sessions weigh more; how much is chosen on the last part of the sessions, which is held out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Meta
from torch import Tensor
from torch.nn.functional import embedding, normalize, pad

from models.encoder import Learned
from models.training import held_out
from models.training.contexts import Contexts
from models.training.corpus import REJECTION, Corpus
from models.training.noise import Unigram
from models.training.run import Run

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

LEAST = 0.05
"""What is left of the learning rate in the end."""
HALF_LIVES = (math.inf, 0.25, 0.08, 0.025)
"""A session weighs half where so large a part of all steps came after it; the one that serves the last part best is
taken."""
HELD_OUT, FEWEST = 0.05, 50
"""The part of the sessions, the last, on which the half-life is chosen; from so few steps nothing is."""
BETAS = (0.9, 0.99)
"""Of Adam."""
LEAST_BLOCK, LEAST_BLOCKS = 32, 8
"""Where there are few steps to learn from, blocks are smaller, so that an epoch has so many of them."""
TINY = 1e-30
"""The logarithm of what is never drawn is finite."""
PART = 1 << 17
"""Actions whose edges of the graph are in memory at a time."""


@dataclass(frozen=True, slots=True)
class SessionEncoder:
    """The settings of the training."""

    dimensions: Annotated[int, Meta(ge=4, le=1024)] = 64
    identity: Annotated[float, Meta(gt=0, le=0.9)] = 0.375
    """The part of the dimensions that tells each listing from its neighbours,"""
    identity_length: Annotated[float, Meta(ge=0, lt=1)] = 0.6
    """and the length of a vector in these, at first."""
    ages: Annotated[int, Meta(ge=1, le=100)] = 12
    """Steps of a session that count, the newest ones."""
    reach: Annotated[int, Meta(ge=1, le=100)] = 10
    """Listings at most so many steps apart are neighbours in the graph, each pair with 1 / steps."""
    diffusions: Annotated[int, Meta(ge=1, le=100)] = 4
    """Steps of diffusion from which they start."""
    epochs: Annotated[int, Meta(ge=1)] = 3
    block: Annotated[int, Meta(ge=1)] = 1024
    negatives: Annotated[int, Meta(ge=1)] = 1024
    """Drawn for a block."""
    noise_exponent: Annotated[float, Meta(ge=-1, le=1)] = 0.75
    """Negatives are drawn by frequency to this power."""
    learning_rate: Annotated[float, Meta(gt=0, le=10)] = 0.004

    @property
    def own(self) -> int:
        """The dimensions of the identity."""
        return max(1, round(self.identity * self.dimensions))


def train(corpus: Corpus, settings: SessionEncoder, run: Run) -> Floats:
    """Vectors of unit length for the n listings of the corpus, float32 [n, d], zeros where one was not acted on beside
    another; `run.encoder` is the encoder learned with them. The corpus is of all actions. Besides vectors and encoder
    a part of it is in memory at a time."""
    sessions = corpus.only(lambda part: part.kinds != REJECTION)
    half_life = _half_life(sessions, settings, run)
    if math.isfinite(half_life):
        run.metrics["half_life"] = half_life
    return _fit(sessions, settings, half_life, settings.epochs, run)


def _half_life(sessions: Corpus, settings: SessionEncoder, run: Run) -> float:
    """The one of HALF_LIVES with which an epoch on the earlier sessions ranks the next listings of the last ones best."""
    until = held_out.until(sessions, HELD_OUT)
    early = sessions.only(lambda part: _by_session(part, part.ends < until))
    late = sessions.only(lambda part: _by_session(part, part.ends >= until))
    if min(_targets(early), _targets(late)) < FEWEST:
        return HALF_LIVES[0]
    seed, found = int(run.random.integers(1 << 31)), []
    for at, half_life in enumerate(HALF_LIVES):
        run.on_progress(0, 0, f"choosing how much recent sessions weigh, {at + 1} of {len(HALF_LIVES)}")
        trial = Run(np.random.default_rng(seed), run.device)
        vectors = _fit(early, settings, half_life, 1, trial)
        found.append(held_out.mrr(vectors, late, trial.encoder))
    return HALF_LIVES[int(np.argmax(found))]


def _fit(sessions: Corpus, settings: SessionEncoder, half_life: float, epochs: int, run: Run) -> Floats:
    random, device = run.random, run.device
    vectors, known = _start(sessions, settings, random)
    if not known.any():  # nobody acted on two listings
        return vectors
    has = torch.from_numpy(known > 0).to(device)
    table = torch.from_numpy(vectors).to(device)
    run.start(table)
    table.requires_grad_()
    ages, start = (tensor.to(device).requires_grad_() for tensor in _ages(settings))
    optimisers = (
        (torch.optim.Adam([ages, start], betas=BETAS), 5 * settings.learning_rate),
        (torch.optim.SparseAdam([table], betas=BETAS), settings.learning_rate),
    )
    state = {"table": table.data, "ages": ages.data, "start": start.data}
    for optimiser, _ in optimisers:
        state |= _begun(optimiser, state)

    def made() -> Floats:
        run.encoder = Learned(ages.detach().cpu().numpy().copy(), start.detach().cpu().numpy().copy())
        return (normalize(table.data, dim=1) * has[:, None]).cpu().numpy()

    noise = Unigram(known, settings.noise_exponent)
    log_odds = torch.from_numpy(np.log(noise.shares * settings.negatives + TINY)).float().to(device)
    total = _targets(sessions)
    for epoch in run.epochs(epochs, state, made):
        done = 0
        for block in _blocks(sessions, settings, half_life, random):
            rows, weights, target, recent = (torch.from_numpy(column).to(device) for column in block)
            negative = torch.from_numpy(noise.draw(random, settings.negatives)).to(device)
            left = max(LEAST, 1 - (epoch * total + done) / (epochs * total))
            for optimiser, rate in optimisers:
                optimiser.param_groups[0]["lr"] = left * rate
                optimiser.zero_grad()
            steps = normalize(embedding(rows, table, sparse=True), dim=2)
            session = (steps * ages * weights[:, :, None]).sum(dim=1) + start
            wanted = normalize(embedding(target, table, sparse=True), dim=1)
            others = normalize(embedding(negative, table, sparse=True), dim=1)
            value = loss(session, wanted, others, log_odds[negative], negative == target[:, None])
            value = (value * recent).mean()
            value.backward()  # type: ignore[no-untyped-call]
            for optimiser, _ in optimisers:
                optimiser.step()
            done += len(target)
            run.step(value.item() * len(target), len(target), done, total)
    return made()


def _begun(optimiser: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the optimiser will know of each parameter, made before it would make it, so that a checkpoint has it."""
    names = {tensor.data_ptr(): name for name, tensor in state.items()}
    known: dict[str, Tensor] = {}
    for parameter in optimiser.param_groups[0]["params"]:
        name = names[parameter.data_ptr()]
        made = {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(parameter.data),
            "exp_avg_sq": torch.zeros_like(parameter.data),
        }
        optimiser.state[parameter] = made
        known |= {f"{name}.{part}": tensor for part, tensor in made.items()}
    return known


def loss(session: Tensor, wanted: Tensor, others: Tensor, log_odds: Tensor, same: Tensor) -> Tensor:
    """Sampled softmax, [b], of `session` [b, d] on `wanted` [b, d] against `others` [k, d], of which `log_odds` [k] are
    the logs of how often they are drawn; those that are the wanted one, `same` [b, k], don't count."""
    positive = (session * wanted).sum(dim=1)
    negative = (session @ others.T - log_odds).masked_fill(same, -math.inf)
    return torch.logaddexp(positive, torch.logsumexp(negative, dim=1)) - positive


def _blocks(
    sessions: Corpus, settings: SessionEncoder, half_life: float, random: np.random.Generator
) -> Iterator[tuple[Ints, Floats, Ints, Floats]]:
    """All steps that have one before them in their session, in random order within parts of the corpus, which come in
    random order: the steps before, [b, a], what these weigh, [b, a], the step, [b], and what its session weighs, [b]."""
    sample = held_out.times(sessions)
    spans = list(sessions.parts())
    size = min(settings.block, max(LEAST_BLOCK, _targets(sessions) // LEAST_BLOCKS))
    for number in random.permutation(len(spans)).tolist():
        part = sessions.part(*spans[number])
        steps, recent = Contexts.of(part), _recency(part, sample, half_life)
        order = random.permutation(steps.targets)
        for at in range(0, len(order), size):
            places = order[at : at + size]
            yield *steps.before(places, settings.ages), steps.tokens[places], recent[places]


def _targets(sessions: Corpus) -> int:
    """How many steps have another before them in their session."""
    return len(sessions.tokens) - sessions.sessions


def _by_session(part: Corpus, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[t]: for each step what is said, [s], of its session."""
    return np.repeat(values, np.diff(part.starts))


def _recency(part: Corpus, sample: Ints, half_life: float) -> Floats:
    """What each step's session weighs, [t], 1 on average over all of the corpus, of whose times `sample` is one in order."""
    if not math.isfinite(half_life):
        return np.ones(len(part.tokens), np.float32)
    # By how many steps came later, and not by time: one session that ends long after all others would weigh everything.
    ages = 1 - np.searchsorted(sample, part.ends, side="right") / len(sample)
    mean = half_life / math.log(2) * (1 - 0.5 ** (1 / half_life))
    return _by_session(part, (0.5 ** (ages / half_life) / mean).astype(np.float32))


def _start(sessions: Corpus, settings: SessionEncoder, random: np.random.Generator) -> tuple[Floats, Ints]:
    """Where the vectors start, [n, d], and how often each listing that has one was acted on, [n], 0 for the others."""
    count = len(sessions.listings)
    degree = torch.zeros(count, dtype=torch.float64)  # in which many small weights add up
    for pairs, weights in _pairs(sessions, settings.reach):
        degree.index_add_(0, pairs[0], weights.double())
    scale = torch.where(degree > 0, degree.rsqrt(), 0).float()[:, None]
    other = settings.own
    near = torch.from_numpy(random.normal(size=(count, settings.dimensions - other)).astype(np.float32))
    for _ in range(settings.diffusions):
        scaled, near = near * scale, torch.zeros_like(near)
        for pairs, weights in _pairs(sessions, settings.reach):
            near += torch.sparse_coo_tensor(pairs, weights, (count, count), check_invariants=False) @ scaled
        basis = torch.linalg.qr(near * scale)[0]
        near = pad(basis, (0, near.shape[1] - basis.shape[1]))  # of fewer listings than dimensions
    own = torch.from_numpy(random.normal(size=(count, other)).astype(np.float32))
    share = settings.identity_length
    vectors = torch.cat(
        [normalize(near, dim=1) * math.sqrt(1 - share**2), normalize(own, dim=1) * share], dim=1
    )
    has = (degree > 0).numpy()
    return (vectors.numpy() * has[:, None]).astype(np.float32), sessions.counts * has


def _pairs(sessions: Corpus, reach: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The edges of the click graph, part by part and in both directions, [2, e], and what they weigh, [e]."""
    for span in sessions.parts(PART):
        part = sessions.part(*span)
        tokens, session = part.tokens.astype(np.int64), part.session
        pairs, weights = [], []
        for steps in range(1, reach + 1):
            left, right = tokens[:-steps], tokens[steps:]
            together = (session[steps:] == session[:-steps]) & (left != right)
            pairs.append(np.stack([left[together], right[together]]))
            weights.append(np.full(int(together.sum()), 1 / steps, np.float32))
        both = np.concatenate(pairs, axis=1)
        yield (
            torch.from_numpy(np.concatenate([both, both[::-1]], axis=1)),
            torch.from_numpy(np.tile(np.concatenate(weights), 2)),
        )


def _ages(settings: SessionEncoder) -> tuple[Tensor, Tensor]:
    """The encoder's weights by age, newest first, and its constant, before they are trained."""
    ages = 10.0 * 0.7 ** torch.arange(settings.ages)[:, None].repeat(1, settings.dimensions)
    ages[:, -settings.own :] = 0.0
    ages[0, -settings.own :] = -5.0
    return ages, torch.zeros(settings.dimensions)
