"""What a benchmark measured."""

from __future__ import annotations

import msgspec


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A figure, and the one it is held against, measured in the same run."""

    name: str
    value: float
    unit: str
    against: str | None = None
    against_value: float | None = None
    ratio: float | None = None
    note: str | None = None
    """What else is worth knowing of how it came about."""


def compared(
    name: str, value: float, unit: str, against: str, against_value: float, *, note: str | None = None
) -> Result:
    """A figure beside another."""
    return Result(
        name=name,
        value=value,
        unit=unit,
        against=against,
        against_value=against_value,
        ratio=value / against_value,
        note=note,
    )
