"""From scores to lists: at each position the best listings by a method, with or without what was clicked already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from models.evaluation import lists
from models.evaluation.methods import Scorer
from models.evaluation.positions import NOTHING, Positions

Repeats = Literal["all", "all-but-last", "none"]
"""Which of the listings clicked in the visit may be recommended again: all, all but the last one, none."""
REPEATS: tuple[Repeats, ...] = get_args(Repeats)
LENGTH = 20
"""Of a list."""
CELLS = 1 << 22
"""Scores held in memory at a time."""

Ints = npt.NDArray[np.int64]


def recommend(
    score: Scorer,
    positions: Positions,
    size: int,
    repeats: Sequence[Repeats],
    on_progress: Callable[[int], None] = lambda done: None,
) -> dict[Repeats, Ints]:
    """For each of `repeats` the lists, [p, min(LENGTH, n)], of codes, of the n = `size` listings of the training.

    Of equal scores the listing comes first that was clicked more often in the training; so what a method knows
    nothing of follows by popularity.
    """
    made: dict[Repeats, list[Ints]] = {which: [] for which in repeats}
    step = max(1, CELLS // size)
    for start in range(0, len(positions), step):
        on_progress(start)
        block = positions[start : start + step]
        longest = int((block.ends - block.begins).max())
        listed = lists.best(score(block), LENGTH + longest)
        for which, blocks in made.items():
            blocks.append(_allowed(listed, _struck(block, size, which)))
    empty = np.empty((0, min(LENGTH, size)), np.int64)
    return {which: np.concatenate([empty, *blocks]) for which, blocks in made.items()}


def _struck(positions: Positions, size: int, repeats: Repeats) -> npt.NDArray[np.bool_]:
    """What may not be recommended, [b, n]."""
    struck = np.zeros((len(positions), size), np.bool_)
    if repeats == "all-but-last":
        last = positions.last()
        some = np.flatnonzero(last >= 0)
        struck[some, last[some]] = True
    elif repeats == "none":
        position, items, _ = positions.before()
        struck[position, items] = True
    return struck


def _allowed(listed: Ints, struck: npt.NDArray[np.bool_]) -> Ints:
    """The first LENGTH of each list that are not struck out; NOTHING where there are no more."""
    out = (listed < 0) | np.take_along_axis(struck, listed, axis=1)
    order = np.argsort(out, axis=1, kind="stable")[:, :LENGTH]
    first = np.take_along_axis(listed, order, axis=1)
    first[np.take_along_axis(out, order, axis=1)] = NOTHING
    return first
