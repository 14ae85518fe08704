"""A request as steps, which know nothing of how they are sent."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import NamedTuple, TypeVar

from .sidecars import Sidecar

T = TypeVar("T")


class Attempt(NamedTuple):
    """A request to send: to whom, what, and until when (time.monotonic) an answer is of use."""

    sidecar: Sidecar
    method: str
    path: str
    body: bytes | None
    until: float


class Reply(NamedTuple):
    """An answer; where none came, the status is 0 and the body says why."""

    status: int
    body: bytes
    location: str = ""


Steps = Generator[Attempt, Reply, T]
"""Each attempt it yields is answered with a reply. What sends them is all that differs by client."""


def left(until: float) -> float:
    """The seconds until then (time.monotonic). Raises TimeoutError where nothing is left."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds
