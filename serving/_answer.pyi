import numpy as np
import numpy.typing as npt

def results(
    candidates: tuple[object, ...],
    order: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32] | None,
    known: npt.NDArray[np.bool_],
    given: int,
) -> bytes: ...
