import numpy as np
import numpy.typing as npt

from models._kernel import Candidates

class Asked:
    min_offset: None
    partition: None
    market: None
    extend: int
    diversity: float
    explain: bool
    @property
    def user_id(self) -> str: ...
    @property
    def timestamp(self) -> int | None: ...
    @property
    def candidates(self) -> Candidates: ...
    @property
    def deadline_ms(self) -> int: ...

def asked(body: bytes) -> Asked | None: ...
def answered(
    candidates: Candidates,
    order: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32] | None,
    given: int,
) -> bytes: ...
