"""The bundle that is current at a path, looked for again and again by whoever serves with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from models import bundle as bundles
from models.bundle import Bundle
from models.errors import UserError


class Current:
    """Remembers which bundle was taken last from `path`, a bundle's folder or a folder of bundles."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._taken: Path | None = None
        self._refused: object = None
        """The files that were there, and their times, when the current bundle was refused last."""

    def load(self) -> Bundle:
        """The bundle that is current now. Raises UserError where there is none, or it is broken."""
        bundle = bundles.load(self.path)
        self._taken = bundle.folder
        return bundle

    def look(self, check: Callable[[Bundle], object] = lambda bundle: None) -> Bundle | None:
        """The bundle that is current now, where it is another one than the last, loaded and checked.

        Raises UserError where it is broken or not all there yet, or `check` says so: once, until its files change.
        """
        seen: object
        try:
            folder = bundles.find(self.path)
            if self._taken == folder:
                self._refused = None
                return None
            seen = (folder, tuple(sorted((file.name, file.stat().st_mtime_ns) for file in folder.iterdir())))
        except (UserError, OSError) as error:
            folder, seen = self.path, str(error)
        if seen == self._refused:
            return None
        try:
            new = bundles.load(folder)
            check(new)
        except Exception:
            self._refused = seen
            raise
        self._taken, self._refused = new.folder, None
        return new

    @property
    def refused(self) -> bool:
        """What is current was refused, and has not changed since."""
        return self._refused is not None
