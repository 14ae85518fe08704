"""A recording -> sessions and searches -> vectors and a ranker -> a bundle.

Where searches with choices were recorded, learning is split at the time when 70 % of the searches are past. The vectors
are fitted to what is before it; what similarity is worth the ranker learns on the searches after it, of which the
vectors know nothing. (Learned on searches that its vectors had seen, it would trust similarity too much.) What the
other features are worth it learns on the searches before as well, for which similarity is left out. Elsewhere the
vectors are fitted to everything, and the ranker is the default one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from models import bundle as bundle_
from models import rank, ranker, types
from models.bundle import Bundle, Training
from models.cold_start import ColdStart
from models.encoder import Learned
from models.errors import UserError
from models.evaluation.rerank import Choice, choices
from models.listings import Listing
from models.training import held_out, ranking
from models.training.corpus import REJECTION, Corpus, Floats, Ints, steps
from models.training.gathering import Gathered, gather
from models.training.methods import DEFAULT, METHODS
from models.training.ranking import Example, Ranking
from models.training.run import Run, fingerprint
from models.training.user_histories import typed
from models.training.warm_start import aligned
from models.types import Types, listing_type

EARLIER = 0.7
"""The part of the searches that are before the time at which learning is split."""
FEWEST = 50
"""A ranker is learned from at least so many searches,"""
MOST = 10_000
"""and from the newest so many."""

Progress = Callable[[str, int, int, str], None]
"""What is being done, how much of it is done, of how much, and a note."""


def train(
    path: str | PathLike[str],
    *,
    known: Iterable[Listing] = (),
    until: int | None = None,
    method: str = DEFAULT,
    settings: Any = None,
    validation: float = 0.0,
    patience: int = 0,
    device: str = "cpu",
    seed: int = 1,
    threads: int = 1,
    checkpoints: Path | None = None,
    warm_start: Path | None = None,
    ranked: Ranking | None = None,
    learn_ranker: bool = True,
    on_progress: Progress = lambda title, done, total, note: None,
) -> Bundle:
    """A bundle, in memory, from the recording at `path` and what is `known` of listings.

    `settings` are the method's. The last part of what vectors may be fitted to, `validation` of it, is held out to see
    how good they are after each epoch, and with `patience` to stop early. Without `learn_ranker` the vectors are fitted to
    everything, and the ranker is the default one. The same arguments give the same bundle on
    one machine, where `threads` is 1. Raises UserError where the recording can't be read or holds nothing to learn from.
    """
    ranked = ranked or Ranking()
    found = gather(path, known, until, lambda done: on_progress("reading", done, 0, ""))
    split = _split(found.searches) if learn_ranker else None
    searches = _remembered(path, until, found, on_progress) if split is not None else []
    if sum(choice.search.timestamp >= (split or 0) for choice in searches) < FEWEST:
        split = None
    before = found.newest + 1 if split is None else split
    made = learn(
        found.corpus,
        before=before,
        method=method,
        settings=settings,
        validation=validation,
        patience=patience,
        device=device,
        seed=seed,
        threads=threads,
        checkpoints=checkpoints,
        warm_start=warm_start,
        data=found.fingerprint,
        on_progress=lambda done, total, note: on_progress("learning vectors", done, total, note),
    )
    if not made.vectors.any():
        raise UserError(f"{path}: {_nothing_said(made.training.settings)}: there is nothing to learn from")
    training = msgspec.structs.replace(
        made.training,
        settings=made.training.settings | asdict(ranked),
        trained_until=found.newest,
        metrics={"events": found.events, "searches": 0} | made.training.metrics,
    )
    assemble = partial(
        bundle_.assemble,
        listings=found.corpus.listings,
        vectors=made.vectors,
        learned=made.encoder,
        types=made.types or _types(found.corpus, before),
    )
    bundle = assemble(ranker=ranker.default(), training=training)
    examples = [example for choice in searches if (example := _example(choice, bundle)) is not None]
    if split is None or len(examples) < FEWEST:
        return bundle
    learned = ranking.train(
        examples,
        ranked,
        lambda done, total, note: on_progress("learning the ranker", done, total, note),
    )
    training = msgspec.structs.replace(
        training, ranker="learned", metrics=training.metrics | {"searches": len(examples)}
    )
    return assemble(ranker=learned, training=training)


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a method learned."""

    vectors: Floats
    """float32 [n, d]"""
    training: Training
    """How they were made."""
    types: Types | None
    """Of users and listings, from a method that learns them;"""
    encoder: Learned | None
    """and the session encoder."""


def learn(
    actions: Corpus,
    *,
    before: int | None = None,
    method: str = DEFAULT,
    settings: Any = None,
    validation: float = 0.0,
    patience: int = 0,
    device: str = "cpu",
    seed: int = 1,
    threads: int = 1,
    checkpoints: Path | None = None,
    warm_start: Path | None = None,
    data: str = "",
    on_progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Fitted:
    """The vectors of the corpus' n listings, fitted to what was done before the time `before` (ms). Of that, the last
    part, `validation` of it, is held out. `warm_start` is a bundle whose vectors the method starts from."""
    torch.set_num_threads(threads)
    chosen = METHODS[method]
    settings = settings if settings is not None else chosen.settings()
    run = Run(np.random.default_rng(seed), torch.device(device), threads, on_progress)
    run.checkpoints, run.patience = checkpoints, patience
    run.what = fingerprint(data, method, settings, before, validation, patience, seed)
    fewest = getattr(settings, "fewest_clicks", 2)
    fitted = steps(actions, before=before, shortest=fewest)
    run.before = before
    if validation:
        run.before = until = held_out.until(fitted, validation)
        later = steps(actions, since=until, before=before)
        fitted = steps(actions, before=until, shortest=fewest)
        run.validate = lambda vectors: held_out.mrr(vectors, later, run.encoder)
    if chosen.whole:
        end = run.before
        fitted = actions if end is None else actions.only(lambda part: part.times < end)
    if warm_start is not None:
        if not chosen.warm:
            able = ", ".join(name for name, each in METHODS.items() if each.warm)
            raise UserError(f"--warm-start: {method} starts from no vectors; it goes with {able}")
        run.warm = aligned(warm_start, actions.listings, settings.dimensions, run.before)
        run.what = fingerprint(run.what, run.warm.tobytes())
    run.check()
    vectors = chosen.train(fitted, settings, run) if fitted.sessions else _nothing(actions)
    if not np.isfinite(vectors).all():
        raise UserError(
            f"{method}: the training diverged, its vectors are no numbers; take a smaller learning_rate"
        )
    if run.warm is not None:  # What was not acted on here keeps what it had.
        vectors = np.where(vectors.any(axis=1, keepdims=True), vectors, run.warm)
    cold = fitted.counts == 0
    vectors = _filled(vectors, actions, np.flatnonzero(cold))
    training = Training(
        source="recording",
        data=data,
        seed=seed,
        method=method,
        settings=asdict(settings),
        curve=run.curve,
        embeddings_until=before,
        metrics={
            "sessions": fitted.sessions,
            "listings_with_vector": int(vectors.any(axis=1).sum()),
            "cold": int(cold.sum()),
            "cold_with_vector": int(vectors[cold].any(axis=1).sum()),
        }
        | run.metrics,
    )
    return Fitted(vectors, training, run.types, run.encoder)


def has_cuda() -> bool:
    """Whether torch can use a GPU here."""
    return torch.cuda.is_available()


def _filled(vectors: Floats, actions: Corpus, cold: Ints) -> Floats:
    """The vectors, [n, d], and for those of the `cold` rows that have none the mean of their neighbours that are not."""
    filled, warm = vectors.copy(), vectors.copy()
    warm[cold] = 0
    neighbours = ColdStart(actions.listings, warm)
    for row in cold[~vectors[cold].any(axis=1)].tolist():
        mean = neighbours.vector(actions.listings.get(row))
        if mean is not None:
            filled[row] = mean
    return filled


def _nothing(actions: Corpus) -> Floats:
    return np.zeros((len(actions.listings), 1), np.float32)


def _nothing_said(settings: Mapping[str, Any]) -> str:
    """Why there is nothing to learn from, where the method has such `settings`."""
    least = {"fewest_clicks": 2, "shortest_click": 0.0}
    dropped = [
        f"{name} = {settings[name]}" for name, value in least.items() if settings.get(name, value) != value
    ]
    left = f" of what {' and '.join(dropped)} leaves" if dropped else ""
    return f"no session{left} acts on two different listings"


def _split(searches: Iterable[int]) -> int | None:
    """The time that parts what vectors are fitted to from what the ranker learns on."""
    ordered = sorted(searches)
    return ordered[int(EARLIER * len(ordered))] if ordered else None


def _types(actions: Corpus, before: int) -> Types:
    """What types of users act on what types of listings, before the time `before`; a user's type is that of the two
    weeks before each action."""
    listings = actions.listings
    kinds = listings.columns.type or [None] * len(listings)
    names = [listing_type(*pair) for pair in zip(kinds, listings.ranges, strict=True)]
    counts: Counter[tuple[str, str]] = Counter()
    for _, row, kind, time, of_user in typed(actions):
        if time < before and kind != REJECTION and of_user is not None:
            counts[of_user, names[row]] += 1
    return types.learn(counts)


def _remembered(
    path: str | PathLike[str], until: int | None, gathered: Gathered, on_progress: Progress
) -> list[Choice]:
    """The newest choices of users of whom anything is known, and not to be forgotten."""
    found = choices(
        path,
        None,
        until=until,
        on_progress=lambda done: on_progress("gathering searches", done, gathered.events, ""),
    )
    remembered = (
        choice
        for choice in found
        if choice.visitor is not None
        and choice.visitor.deeds(choice.search.timestamp)
        and choice.search.timestamp > gathered.forgotten.get(choice.search.user_id, -1)
    )
    return list(deque(remembered, MOST))


def _example(choice: Choice, bundle: Bundle) -> Example | None:
    """The features of the choice's known candidates, without similarity where the vectors were fitted to its time;
    None where the chosen listing or all others are unknown, or nothing is known of the visitor."""
    visitor, time = choice.visitor, choice.search.timestamp
    assert visitor is not None
    candidates = rank.look_up(choice.candidates, bundle)
    known = np.flatnonzero(candidates.rows >= 0)
    if choice.chosen not in known or len(known) < 2:
        return None
    vector = bundle.encode(visitor.session(time))
    user = msgspec.structs.replace(visitor.embedding, vector=vector, bundle=bundle.name)
    similar = time >= (bundle.manifest.training.embeddings_until or 0)
    seen = rank.of(bundle, visitor.replaced(user), time, similar=similar)
    if seen is None:
        return None
    values = rank.matrix(bundle, seen, candidates)
    return Example(values, known.tolist().index(choice.chosen))
