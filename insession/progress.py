"""Progress of long work: a bar on a terminal, a plain line every few seconds elsewhere. Always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_LOOKS = 0.1
"""Between two updates of the bar that `progress` shows of items."""


class Progress:
    """Call `update(done, note)` with the amount done so far; close it, or use it as a context manager."""

    def __init__(self, title: str, total: int | None = None, unit: str = "") -> None:
        self.title, self.total, self.unit = title, total, unit
        self.started = self.said = time.monotonic()
        self.done = 0
        self.bar = (
            tqdm(desc=title, total=total, unit=f" {unit}", unit_scale=True, file=sys.stderr)
            if sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, done: int, note: str = "", total: int = 0) -> None:
        """`done` of the total so far; `note` is shown beside it. The `total`, where it is known only now."""
        advance, self.done = done - self.done, done
        self.total = total or self.total
        if self.bar is not None:
            self.bar.total = self.total
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(advance)
        elif time.monotonic() - self.said >= SECONDS_BETWEEN_LINES:
            self.said = time.monotonic()
            self._line(note)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        elif time.monotonic() - self.started >= SECONDS_BETWEEN_LINES:
            self._line("done")

    def _line(self, note: str) -> None:
        of = f" of {self.total:,}" if self.total else ""
        print(f"{self.title}: {self.done:,}{of} {self.unit} {note}".rstrip(), file=sys.stderr, flush=True)


def progress(items: Iterable[T], title: str, total: int | None = None, unit: str = "") -> Iterator[T]:
    """The items, with progress shown as they are taken."""
    with Progress(title, total, unit) as shown:
        done, due = 0, time.monotonic() + SECONDS_BETWEEN_LOOKS
        for done, item in enumerate(items, 1):
            yield item
            if time.monotonic() >= due:
                shown.update(done)
                due = time.monotonic() + SECONDS_BETWEEN_LOOKS
        shown.update(done)


class Stages:
    """Progress of one thing after another, each with its title."""

    def __init__(self) -> None:
        self.title = ""
        self.shown: Progress | None = None

    def update(self, title: str, done: int, total: int, note: str = "") -> None:
        if title != self.title:
            self.close()
            self.title, self.shown = title, Progress(title, total or None)
        if self.shown is not None:
            self.shown.update(done, note, total)

    def close(self) -> None:
        if self.shown is not None:
            self.shown.close()
        self.shown = None
