"""Ctrl-C and SIGTERM as something to look at between two records; a second one ends the process at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """True once the process was told to end."""

    def __init__(self) -> None:
        self.signal = 0

    def __bool__(self) -> bool:
        return bool(self.signal)

    @property
    def code(self) -> int:
        """The exit code of a process that the signal has ended, as a shell has it."""
        return 128 + self.signal


@contextmanager
def interrupt() -> Iterator[Interrupt]:
    """Gather the two signals until the end of the `with`."""
    told = Interrupt()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(number: int, _: FrameType | None) -> None:
        told.signal = number
        restore()

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield told
    finally:
        restore()
