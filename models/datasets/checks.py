"""Checks of a recording: what they say, and the few thresholds that decide. docs/recording.md explains each."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

Status = Literal["pass", "warn", "fail", "skip"]

WRONG = 0.01
"""Of what should not be at all, one in a hundred is a mistake in what produces it; less is worth a look."""
UNKNOWN = 0.1
"""Of the events, this share on listings that nothing is known of: the listings are another catalogue's."""
FIRST = 0.9
"""This share of the choices on the first place: the lists are not those that were shown, or begin with the choice."""
ENOUGH = 100
"""So many choices, visits or gaps tell something of their distribution."""
SINGLE = (0.8, 0.95)
"""Visits of a single action: many, and so many that user ids can't be those of visitors."""
LONG = (0.05, 0.5)
"""Actions in visits of more actions than a session keeps: many, and so many that user ids stand for many people."""
ROBOTS = 0.05
"""Of the actions, this share by users who act as no person does: they would shape what is learned."""
SAME_TIME = (0.2, 0.9)
"""Steps of a visit that take no time: many, and so many that times are days or hours."""
SPREAD = 10_000
"""The dearest price in the cheapest: more than that is two currencies, or cents among euros."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked at. `skip`: there was nothing to look at. `todo` says what to do where it did not pass."""

    what: str
    status: Status
    found: str
    todo: str = ""
    numbers: dict[str, float] = {}


def rare(what: str, wrong: int, of: int, says: str, todo: str, *, limit: float = WRONG) -> Check:
    """Passes where none of `of` is wrong, warns up to the limit, fails above. `says` names those that are wrong."""
    if not of:
        return Check(what=what, status="skip", found="nothing to look at")
    share = wrong / of
    status: Status = "pass" if not wrong else "warn" if share <= limit else "fail"
    found = f"{wrong:,} of {of:,} {says}{_percent(wrong, of)}" if wrong else f"none of {of:,} {says}"
    return Check(
        what=what,
        status=status,
        found=found,
        todo=todo if wrong else "",
        numbers={"wrong": wrong, "of": of},
    )


def common(
    what: str,
    count: int,
    of: int,
    says: str,
    todo: str,
    limits: tuple[float, float],
    extra: str = "",
    enough: int = 1,
) -> Check:
    """Passes up to the first limit, warns up to the second, fails above; skips fewer than `enough`, of which no share can be told."""
    if not of:
        return Check(what=what, status="skip", found="nothing to look at")
    share = count / of
    status: Status = "pass" if share <= limits[0] else "warn" if share <= limits[1] else "fail"
    if of < enough:
        status, extra = "skip", ": too few to tell"
    return Check(
        what=what,
        status=status,
        found=f"{count:,} of {of:,} {says}{_percent(count, of)}{extra}",
        todo=todo if status in ("warn", "fail") else "",
        numbers={"count": count, "of": of},
    )


def _percent(count: int, of: int) -> str:
    """To two digits, of what is missing to all where that is less: only all are 100 %, and only none 0 %."""
    percent = 100 * count / of
    rest = min(percent, 100 - percent)
    digits = 1 - math.floor(math.log10(rest)) if rest else 0
    text = f"{percent:.{max(0, digits)}f}"
    return f" ({text.rstrip('0').rstrip('.') if '.' in text else text} %)"
