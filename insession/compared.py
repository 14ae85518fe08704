"""Bundles that are compared: each has a row named by its folder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import click

from insession.times import text
from models import bundle as bundle_
from models.bundle import Bundle


def named(paths: Sequence[Path], taken: Collection[str] = ()) -> dict[str, Path]:
    """The bundles by the names of their rows: their folders', or the whole paths where those are not of one bundle alone."""
    found: dict[str, Path] = {}
    for path in paths:
        name = path.name if path.name not in ("", "..", bundle_.CURRENT) else bundle_.find(path).name
        if name in found or name in taken:
            name = str(path)
        if name in found:
            raise click.UsageError(f"--bundle {path} is given twice")
        found[name] = path
    return found


def learned_later(name: str, made: Bundle, times: Sequence[int], what: str) -> list[str]:
    """The warning that is due where some of what a bundle is measured on, at `times` (ms), it was trained on."""
    until = made.manifest.training.trained_until
    inside = sum(until is not None and time <= until for time in times)
    if until is None or not inside:
        return []
    return [
        f"{name}: {inside:,} of the {len(times):,} {what} are from the time this bundle was trained on"
        f" (until {text(until)})"
    ]
