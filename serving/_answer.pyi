def results(
    candidates: tuple[object, ...],
    order: list[int],
    scores: list[float] | None,
    known: list[bool],
    given: int,
) -> bytes: ...
