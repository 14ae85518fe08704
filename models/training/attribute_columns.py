"""Attributes of listings from columns of a table: what a cell says, as one that a Listing may have."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import date, time
from decimal import Decimal

from models.listings import Attribute

BOOLS = {"true": True, "false": False}
ALLOWED = "a number, a text, true or false, a time, or a list of numbers or of texts"


def of_value(value: object) -> Attribute | None:
    """The attribute that a typed cell holds; None where it says nothing, as null, NaN, and what is empty.

    A list of numbers becomes a text with spaces between them, which is how an attribute holds a vector; times become
    ISO texts. Raises ValueError where it can't be one.
    """
    if value is None or value == "" or value == [] or value != value:
        return None
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int | float | Decimal) and math.isfinite(value):
        return float(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, list):
        if all(isinstance(part, str) for part in value):
            return tuple(value)
        if all(isinstance(part, int | float) and math.isfinite(part) for part in value):
            return " ".join([f"{part:.7g}" for part in value])
    raise ValueError(f"an attribute is {ALLOWED}")


def of_texts(cells: Iterable[str]) -> Callable[[str], Attribute | None]:
    """How to read the cells of a column that is written as text: as numbers, or as true and false, where all that are
    not empty are that, and else as they are."""
    said = {cell for cell in cells if cell}
    if all(cell.lower() in BOOLS for cell in said):
        return lambda cell: BOOLS.get(cell.lower())
    if all(map(_is_number, said)):
        return lambda cell: float(cell) if cell else None
    return lambda cell: cell or None


def _is_number(cell: str) -> bool:
    """Whether it is a finite number, and no code like 007."""
    try:
        number = float(cell)
    except ValueError:
        return False
    code = len(cell) > 1 and cell[0] == "0" and cell[1].isdigit()
    return math.isfinite(number) and not code and "_" not in cell
