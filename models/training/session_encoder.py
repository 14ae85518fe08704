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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Meta
from torch import Tensor
from torch.nn.functional import embedding, normalize

from models.encoder import Learned, Mean
from models.history import LONG_CLICK_SECONDS
from models.training.corpus import KINDS, REJECTION, Corpus
from models.training.run import Run

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

LEAST = 0.05
"""What is left of the learning rate in the end."""
HALF_LIVES = (math.inf, 0.25, 0.08, 0.025)
"""A session weighs half where so large a part of all steps came after it; the one that serves the last part best is
taken."""
HELD_OUT, FEWEST, MOST = 0.05, 50, 2_000
"""The part of the sessions, the last, on which the half-life is chosen; from so few steps nothing is, and so many do."""


@dataclass(frozen=True, slots=True)
class SessionEncoder:
    """The settings of the training."""

    dimensions: Annotated[int, Meta(ge=4, le=1024)] = 64
    identity: Annotated[float, Meta(ge=0, le=0.9)] = 0.375
    """The part of the dimensions that tells each listing from its neighbours,"""
    identity_length: Annotated[float, Meta(ge=0, lt=1)] = 0.6
    """and the length of a vector in these, at first."""
    ages: Annotated[int, Meta(ge=1, le=100)] = 12
    """Steps of a session that count, the newest ones."""
    reach: Annotated[int, Meta(ge=1, le=100)] = 10
    """Listings at most so many steps apart are neighbours in the graph, each pair with 1 / steps."""
    diffusions: Annotated[int, Meta(ge=1, le=100)] = 4
    epochs: Annotated[int, Meta(ge=1)] = 3
    batch: Annotated[int, Meta(ge=1)] = 1024
    negatives: Annotated[int, Meta(ge=1)] = 1024
    """Drawn for a batch."""
    smoothing: float = 0.75
    """Negatives are drawn by frequency to this power."""
    learning_rate: Annotated[float, Meta(gt=0)] = 0.004


@dataclass(frozen=True, slots=True)
class Sessions:
    """s sessions end to end, oldest first where that matters, of n listings."""

    tokens: Ints
    """[t]: the listing of each step, all actions, repeated ones too."""
    starts: Ints
    """[s + 1]: session k is tokens[starts[k]:starts[k + 1]]."""
    listings: int
    """n"""
    times: Ints | None = None
    """[t], in any unit, as only their order counts; without them all sessions weigh the same."""
    weights: Floats | None = None
    """[2, t]: what each step weighs while it is the newest, and later, when it is known how long it lasted."""

    def slice(self, start: int, end: int) -> Sessions:
        """Sessions from `start` to `end`, of the same listings."""
        a, b = int(self.starts[start]), int(self.starts[end])
        return Sessions(
            self.tokens[a:b],
            self.starts[start : end + 1] - a,
            self.listings,
            None if self.times is None else self.times[a:b],
            None if self.weights is None else self.weights[:, a:b],
        )


def train(corpus: Corpus, settings: SessionEncoder, run: Run) -> Floats:
    """Vectors of unit length for the n listings of the corpus, float32 [n, d], zeros where one was not acted on beside
    another; `run.encoder` is the encoder learned with them. The corpus is of all actions, and is held in memory."""
    vectors, run.encoder = learn(_sessions(corpus), settings, run)
    return vectors


def learn(
    sessions: Sessions, settings: SessionEncoder, run: Run, *, vectors: Floats | None = None
) -> tuple[Floats, Learned]:
    """The vectors and the encoder; with `vectors` these stay as they are, and only the encoder is learned."""
    sessions, random = _by_time(sessions), run.random
    last = len(sessions.starts) - 1
    part = int(last * (1 - HELD_OUT))
    early, late = sessions.slice(0, part), sessions.slice(part, last)
    tried = HALF_LIVES if sessions.times is not None else (math.inf,)
    if len(tried) > 1 and len(_targets(early)) >= FEWEST and len(_targets(late)) >= FEWEST:
        seed = int(random.integers(1 << 31))
        scores = []
        for at, half_life in enumerate(tried):
            run.on_progress(at, len(tried), "choosing how much recent sessions weigh")
            trial = _fit(early, settings, half_life, 1, Run(np.random.default_rng(seed), run.device), vectors)
            scores.append(reciprocal_rank(late, *trial))
        half_life = tried[int(np.argmax(scores))]
    else:
        half_life = tried[0]
    if math.isfinite(half_life):
        run.metrics["half_life"] = half_life
    return _fit(sessions, settings, half_life, settings.epochs, run, vectors)


def _sessions(corpus: Corpus) -> Sessions:
    """What of a corpus is a step: all but rejections; each weighs what the encoder has it weigh."""
    kept = corpus.only(lambda part: part.kinds != REJECTION)
    mean = Mean()
    by_kind = np.array([getattr(mean, kind) for kind in KINDS], np.float32)
    newest = by_kind[kept.kinds]
    long = (kept.kinds == KINDS.index("click")) & (kept.seconds >= LONG_CLICK_SECONDS)
    later = np.where(long, np.float32(mean.long_click), newest)
    tokens, starts = np.array(kept.tokens, np.int64), np.array(kept.starts)
    return Sessions(tokens, starts, len(kept.listings), np.array(kept.times), np.stack([newest, later]))


def _fit(
    sessions: Sessions,
    settings: SessionEncoder,
    half_life: float,
    epochs: int,
    run: Run,
    vectors: Floats | None,
) -> tuple[Floats, Learned]:
    fixed, random, device = vectors is not None, run.random, run.device
    known = np.bincount(sessions.tokens, minlength=sessions.listings)
    recent = _recency(sessions, half_life)
    if vectors is None:
        vectors, known = _start(sessions, recent, settings, random)
    has = torch.from_numpy(known > 0).to(device)
    table = torch.from_numpy(vectors.copy()).to(device).requires_grad_(not fixed)
    ages, start = (
        tensor.to(device).detach().requires_grad_() for tensor in _ages(settings, vectors.shape[1], fixed)
    )
    rate, betas = settings.learning_rate, (0.9, 0.99)
    optimisers: list[tuple[torch.optim.Optimizer, float]] = [
        (torch.optim.Adam([ages, start], betas=betas), 5 * rate)
    ]
    if not fixed:
        optimisers.append((torch.optim.SparseAdam([table], betas=betas), rate))
    state = {"table": table.data, "ages": ages.data, "start": start.data}
    for optimiser, _ in optimisers:
        state |= _begun(optimiser, state)

    def made() -> Floats:
        return (normalize(table.data, dim=1) * has[:, None]).cpu().numpy()

    targets = _targets(sessions)
    drawn = (known > 0) * known.astype(np.float64) ** settings.smoothing
    odds = np.log(np.maximum(drawn / drawn.sum(), 1e-30) * settings.negatives)
    log_odds = torch.from_numpy(odds).float().to(device)
    drawn = np.cumsum(drawn)
    for epoch in run.epochs(epochs, state, made):
        order = random.permutation(targets)
        for at in range(0, len(order), settings.batch):
            places = order[at : at + settings.batch]
            rows, weights = (part.to(device) for part in _contexts(sessions, places, settings.ages))
            negative = torch.from_numpy(
                np.searchsorted(drawn, random.random(settings.negatives) * drawn[-1], side="right")
            ).to(device)
            target = torch.from_numpy(sessions.tokens[places]).to(device)
            left = max(LEAST, 1 - (epoch * len(targets) + at) / (epochs * len(targets)))
            for optimiser, rate in optimisers:
                optimiser.param_groups[0]["lr"] = left * rate
                optimiser.zero_grad()
            steps = normalize(embedding(rows, table, sparse=not fixed), dim=2)
            session = (steps * ages * weights[:, :, None]).sum(dim=1) + start
            wanted = normalize(embedding(target, table, sparse=not fixed), dim=1)
            others = normalize(embedding(negative, table, sparse=not fixed), dim=1)
            value = loss(session, wanted, others, log_odds[negative], negative == target[:, None])
            value = (value * torch.from_numpy(recent[places]).to(device)).mean()
            value.backward()  # type: ignore[no-untyped-call]
            for optimiser, _ in optimisers:
                optimiser.step()
            run.step(value.item() * len(places), len(places), at + len(places), len(targets))
    learned = Learned(ages.detach().cpu().numpy().copy(), start.detach().cpu().numpy().copy())
    return (vectors if fixed else made()), learned


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


def _by_time(sessions: Sessions) -> Sessions:
    """The sessions in the order of their last steps."""
    if sessions.times is None or len(sessions.starts) < 2:
        return sessions
    order = np.argsort(sessions.times[sessions.starts[1:] - 1], kind="stable")
    lengths = np.diff(sessions.starts)[order]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    places = np.arange(starts[-1]) + np.repeat(sessions.starts[:-1][order] - starts[:-1], lengths)
    weights = None if sessions.weights is None else sessions.weights[:, places]
    return Sessions(sessions.tokens[places], starts, sessions.listings, sessions.times[places], weights)


def _targets(sessions: Sessions) -> Ints:
    """The steps before which there is another in their session."""
    later = np.ones(len(sessions.tokens), np.bool_)
    later[sessions.starts[:-1]] = False
    return np.flatnonzero(later)


def _recency(sessions: Sessions, half_life: float) -> Floats:
    """What each step's session weighs, [t], 1 on average over the steps."""
    if sessions.times is None or not math.isfinite(half_life) or not len(sessions.times):
        return np.ones(len(sessions.tokens), np.float32)
    # By how many steps came later, and not by time: one session that ends long after all others would weigh everything.
    ages = 1 - np.repeat(sessions.starts[1:], np.diff(sessions.starts)) / len(sessions.tokens)
    weights = 0.5 ** (ages / half_life)
    scaled: Floats = (weights / weights.mean()).astype(np.float32)
    return scaled


def _start(
    sessions: Sessions, recent: Floats, settings: SessionEncoder, random: np.random.Generator
) -> tuple[Floats, Ints]:
    """Where the vectors start, [n, d], and how often each listing that has one was acted on, [n], 0 for the others."""
    count = sessions.listings
    session = np.repeat(np.arange(len(sessions.starts) - 1), np.diff(sessions.starts))
    pairs, values = [], []
    for steps in range(1, settings.reach + 1):
        left, right = sessions.tokens[:-steps], sessions.tokens[steps:]
        together = (session[steps:] == session[:-steps]) & (left != right)
        pairs.append(np.stack([left[together], right[together]]))
        values.append(np.full(int(together.sum()), 1 / steps, np.float32))
    both = np.concatenate(pairs, axis=1)
    indices = torch.from_numpy(np.concatenate([both, both[::-1]], axis=1))
    weights = torch.from_numpy(np.tile(np.concatenate(values), 2))
    degree = torch.zeros(count).index_add_(0, indices[0], weights)
    scaled = weights / (degree[indices[0]] * degree[indices[1]]).sqrt()
    graph = torch.sparse_coo_tensor(indices, scaled, (count, count), check_invariants=False).coalesce()

    other = max(1, round(settings.identity * settings.dimensions))
    near = torch.from_numpy(random.normal(size=(count, settings.dimensions - other)).astype(np.float32))
    for _ in range(settings.diffusions):
        near = torch.linalg.qr(torch.sparse.mm(graph, near))[0]
    own = torch.from_numpy(random.normal(size=(count, other)).astype(np.float32))
    share = settings.identity_length
    vectors = torch.cat(
        [normalize(near, dim=1) * math.sqrt(1 - share**2), normalize(own, dim=1) * share], dim=1
    )
    has = (degree > 0).numpy()
    seen = np.bincount(sessions.tokens, minlength=count)
    return (vectors.numpy() * has[:, None]).astype(np.float32), seen * has


def _ages(settings: SessionEncoder, dimensions: int, fixed: bool) -> tuple[Tensor, Tensor]:
    """The encoder's weights by age, newest first, and its constant, before they are trained."""
    ages = 10.0 * 0.7 ** torch.arange(settings.ages)[:, None].repeat(1, dimensions)
    if not fixed:
        other = max(1, round(settings.identity * dimensions))
        ages[:, dimensions - other :] = 0.0
        ages[0, dimensions - other :] = -5.0
    return ages.requires_grad_(), torch.zeros(dimensions, requires_grad=True)


def _contexts(sessions: Sessions, places: Ints, ages: int) -> tuple[Tensor, Tensor]:
    """The steps before each of the places, newest first, [b, a], and what they weigh, 0 where there is none."""
    first = sessions.starts[np.searchsorted(sessions.starts, places, side="right") - 1]
    before = places[:, None] - 1 - np.arange(ages)
    there = before >= first[:, None]
    before = np.maximum(before, 0)
    weights = there.astype(np.float32)
    if sessions.weights is not None:
        weights[:, :1] *= sessions.weights[0][before[:, :1]]
        weights[:, 1:] *= sessions.weights[1][before[:, 1:]]
    return torch.from_numpy(sessions.tokens[before]), torch.from_numpy(weights)


def reciprocal_rank(sessions: Sessions, vectors: Floats, learned: Learned, within: int = 20) -> float:
    """The mean reciprocal rank of the next listing among all, over the first steps of the sessions that have a vector."""
    known = vectors.any(axis=-1).reshape(-1)
    targets = _targets(sessions)
    targets = targets[known[sessions.tokens[targets]]][:MOST]
    table, ages = torch.from_numpy(vectors), torch.from_numpy(learned.ages)
    total = 0.0
    for at in range(0, len(targets), 256):
        places = targets[at : at + 256]
        rows, weights = _contexts(sessions, places, len(ages))
        session = (table[rows] * ages * weights[:, :, None]).sum(dim=1) + torch.from_numpy(learned.start)
        scores = session @ table.T
        wanted = scores.gather(1, torch.from_numpy(sessions.tokens[places])[:, None])
        ranks = 1 + ((scores > wanted) & torch.from_numpy(known)).sum(dim=1)
        total += float((1 / ranks[ranks <= within]).sum())
    return total / max(len(targets), 1)
