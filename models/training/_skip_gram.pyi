import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]

class Noise:
    def __init__(
        self, listings: Codes, ends: Doubles, guide: Codes, low: Doubles, high: Doubles, tries: int
    ) -> None: ...
    def at(self, point: float) -> int: ...

class Tables:
    def __init__(
        self, centres: Floats, contexts: Floats, centre_sums: Floats, context_sums: Floats
    ) -> None: ...

def fit(
    tables: Tables,
    noise: Noise,
    tokens: Codes,
    starts: Ints,
    booked: Codes,
    window: int,
    negatives: int,
    market_negatives: int,
    learning_rate: float,
    seed: int,
    threads: int,
) -> tuple[float, int]: ...
def step(tables: Tables, centre: int, others: Codes, learning_rate: float) -> float: ...
