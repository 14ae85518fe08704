"""A bundle at next-click evaluation: the visit's embedding, as a worker would publish it, by every listing's vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.evaluation.positions import Positions
from models.sessions import WINDOWS, Action, Session


class Bundled:
    """Scores `listings`, those of the training by code, by their dot products with the visit's embedding.

    A listing without a vector in the bundle is never recommended; after clicks of which the bundle knows nothing all
    others score alike.
    """

    def __init__(self, bundle: Bundle, listings: Sequence[str]) -> None:
        self._bundle = bundle
        rows = np.array([bundle.row.get(listing, -1) for listing in listings], np.int64)
        self._vectors = np.where(rows[:, None] >= 0, bundle.vectors[rows], np.float32(0))
        self._unknown = np.flatnonzero(~self._vectors.any(axis=1))

    def __call__(self, positions: Positions) -> npt.NDArray[np.float32]:
        queries = np.zeros((len(positions), self._vectors.shape[1]), np.float32)
        for row, session in enumerate(sessions(positions)):
            vector = self._bundle.encode(session)
            if vector is not None:
                queries[row] = vector
        scores: npt.NDArray[np.float32] = queries @ self._vectors.T
        scores[:, self._unknown] = -np.inf
        return scores


def sessions(positions: Positions) -> list[Session]:
    """The open session just before each position: the clicks before it, of which a state keeps the newest."""
    source = positions.source
    acted: dict[int, list[Action]] = {}
    made = []
    for visit, click in zip(positions.visits.tolist(), positions.clicks.tolist(), strict=True):
        start, end = source.starts[visit : visit + 2].tolist()
        if visit not in acted:
            acted[visit] = [
                Action(time, f"{at:012d}", "click", source.listings[item])
                for at, (time, item) in enumerate(
                    zip(source.times[start:end].tolist(), source.items[start:end].tolist(), strict=True)
                )
            ]
        kept = acted[visit][max(0, click - start - WINDOWS.events) : click - start]
        made.append(Session(int(source.times[start]), tuple(kept)))
    return made
