"""Ranks of the chosen listing: where in the list the visitor had to go for it."""

from __future__ import annotations

from collections.abc import Sequence


def rank_of(chosen: int, order: Sequence[int]) -> int:
    """The rank, from 1, of candidate `chosen` in `order`, which lists candidates best first."""
    return order.index(chosen) + 1
