from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

Gathered = tuple[Rows, Doubles, Doubles, bool, bool]

NAMES: tuple[str, ...]

def gather(candidates: Sequence[object], row: dict[str, int]) -> Gathered: ...
def centroids(
    vectors: Floats, rows: list[int], groups: list[int], count: int, vector: tuple[float, ...] | None
) -> Floats: ...
def features(
    vectors: Floats,
    log_prices: Floats,
    types: npt.NDArray[np.int32],
    rows: Rows,
    positions: Rows,
    scores: Doubles,
    prices: Doubles,
    queries: Floats,
    columns: list[int],
    type_similarities: Floats,
    acted: list[int],
    counts: list[int],
    inside: bool,
    shown: list[int],
    log_price: float,
) -> Floats: ...
def contributions(matrix: Floats, weights: Floats, lows: Floats, per_step: Floats) -> Floats: ...
def scores(matrix: Floats, weights: Floats, lows: Floats, per_step: Floats) -> Floats: ...
