"""session_encode: a click's session to its embedding, in microseconds, for 100 users at a time that are clicked for in turn.

Sessions grow click by click, up to eight; the encoder is a learned one of 64 dimensions, with the mean's beside it.
"""

from __future__ import annotations

import random
import statistics
import time

import numpy as np

from models.encoder import Encoder, Learned, Mean
from models.sessions import Session
from models.space import Space
from tests.benchmarks.result import Result, compared
from tests.made import act, unit, visit

LISTINGS, DIMENSIONS, AGES = 20_000, 64, 12
USERS, CLICKS, ROUNDS = 100, 8, 20


def run() -> list[Result]:
    rng, vectors = random.Random(1), unit(LISTINGS, DIMENSIONS)
    space = Space({f"l{row}": row for row in range(LISTINGS)}, vectors)
    learned = Learned(
        np.random.default_rng(1).normal(size=(AGES, DIMENSIONS)).astype(np.float32), unit(1, DIMENSIONS)[0]
    )
    events = [[act(at * 40, f"l{rng.randrange(LISTINGS)}") for at in range(CLICKS)] for _ in range(USERS)]
    batches = [[visit(*clicks[: at + 1]) for clicks in events] for at in range(CLICKS)]
    mean = _microseconds(Encoder(Mean(), space), batches)
    value = _microseconds(Encoder(Mean(), space, learned), batches)
    return [compared("session_encode", value, "us", "the decayed mean", mean)]


def _microseconds(encoder: Encoder, batches: list[list[Session]]) -> float:
    """A click's, the median over the batches."""
    seconds = []
    for _ in range(ROUNDS):
        for sessions in batches:
            started = time.perf_counter()
            for session in sessions:
                encoder.encode(session)
            seconds.append((time.perf_counter() - started) / len(sessions))
    return statistics.median(seconds) * 1e6
