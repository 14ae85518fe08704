"""Bundles that are compared, each in a row named by its folder, and the options of the commands that compare."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from insession.times import Time, text
from models import bundle as bundle_
from models.bundle import Bundle

F = TypeVar("F", bound=Callable[..., Any])

seed_option = click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="Of all that is random."
)


def bundle_option(*, several: bool = True, required: bool = True) -> Callable[[F], F]:
    """The flag `--bundle`, as the argument `bundle_path` or `bundle_paths`."""
    return click.option(
        "--bundle",
        "bundle_paths" if several else "bundle_path",
        multiple=several,
        required=required,
        type=click.Path(path_type=Path),
        help=f"A bundle, or a folder of bundles whose `current` is taken{'; may be repeated' if several else ''}.",
    )


def since_option(what: str) -> Callable[[F], F]:
    """The flag `--from`, as the argument `since` in ms, of a command that measures on so many of `what` a recording has."""
    return click.option(
        "--from",
        "since",
        type=Time(),
        help=f"Measure only on {what} from then on: an ISO date or time (UTC), or milliseconds. What came before still counts.",
    )


def loaded(paths: Sequence[Path], taken: Collection[str] = ()) -> dict[str, Bundle]:
    """The bundles by the names of their rows, of which some are `taken`. Raises UserError where one can't be read."""
    return {name: bundle_.load(path) for name, path in named(paths, taken).items()}


def named(paths: Sequence[Path], taken: Collection[str] = ()) -> dict[str, Path]:
    """The bundles by the names of their rows: their folders', or the whole paths where those are not of one bundle alone."""
    found: dict[str, Path] = {}
    for path in paths:
        name = path.name if path.name not in ("", "..", bundle_.CURRENT) else bundle_.find(path).name
        if name in found or name in taken:
            name = str(path) if str(path) not in taken else str(path.absolute())
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
