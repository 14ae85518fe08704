from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.history import Done

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

Gathered = tuple[Rows, Doubles, Doubles, bool, bool]

NAMES: tuple[str, ...]

class Directory:
    def __init__(self, ids: list[str]) -> None: ...
    def set(self, id: str, row: int) -> None: ...

def gather(candidates: Sequence[object], directory: Directory, vectors: Floats) -> Gathered: ...
def taste(
    tuples: list[tuple[Done, ...]],
    vectors: Floats,
    directory: Directory,
    markets: list[str | None],
    ranges: list[int],
    vector: tuple[float, ...] | None,
) -> tuple[Floats, list[int], int, int, int, bool]: ...
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
def rank(
    vectors: Floats,
    log_prices: Floats,
    types: npt.NDArray[np.int32],
    rows: Rows,
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
    weights: Floats,
    lows: Floats,
    per_step: Floats,
) -> tuple[Rows, Floats]: ...
