"""Which users get which ranking: shares of them, by a stable hash of who they are."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path

from models.errors import UserError

DEFAULT, CALLER = "default", "caller"
_FORM = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64})=(?P<share>[0-9.]+)(?::(?P<how>.+))?")


@dataclass(frozen=True, slots=True)
class Variant:
    """A share of the users, and what they get: the caller's order, a bundle of its own, or what all others get."""

    name: str
    share: float
    caller: bool = False
    bundle: Path | None = None


EVERYONE = Variant(DEFAULT, 1.0)


class Variants:
    """The variants, and whose is which."""

    def __init__(self, variants: Iterable[Variant] = (), experiment: str = "") -> None:
        """The rest of the users has the default. Another `experiment` deals them out anew."""
        listed = list(variants)
        rest = 1.0 - sum(variant.share for variant in listed)
        self.all = [*listed, Variant(DEFAULT, round(max(0.0, rest), 9))] if listed else [EVERYONE]
        self._bounds = list(accumulate(variant.share for variant in listed))
        self._salt = experiment.encode() + b"\0"

    def of(self, user_id: str) -> Variant:
        """The user's variant: always the same, as long as the variants before it keep their shares."""
        if not self._bounds:
            return EVERYONE
        hashed = blake2b(self._salt + user_id.encode(), digest_size=8).digest()
        return self.all[bisect_right(self._bounds, int.from_bytes(hashed, "big") / 2**64)]


def parse(
    texts: Iterable[str], experiment: str = "", at: Callable[[Path], Path] = lambda bundle: bundle
) -> Variants:
    """Variants of `NAME=SHARE`, `NAME=SHARE:caller` or `NAME=SHARE:BUNDLE`, whose bundle is where `at` says.

    Raises UserError where they are none.
    """
    variants: list[Variant] = []
    for text in texts:
        found = _FORM.fullmatch(text)
        share = _share(found["share"]) if found else None
        if not found or share is None:
            raise UserError(
                f"--variant {text}: give NAME=SHARE, NAME=SHARE:caller or NAME=SHARE:BUNDLE, with a share above 0 and "
                "at most 1, as in control=0.1:caller"
            )
        name, how = found["name"], found["how"]
        if name == DEFAULT or name in {variant.name for variant in variants}:
            says = "the rest of the users has that name" if name == DEFAULT else "that name was given before"
            raise UserError(f"--variant {text}: {says}; choose another")
        bundle = at(Path(how)) if how and how != CALLER else None
        variants.append(Variant(name, share, how == CALLER, bundle))
    if sum(variant.share for variant in variants) > 1 + 1e-9:
        raise UserError("--variant: the shares add up to more than 1; make them smaller")
    return Variants(variants, experiment)


def _share(text: str) -> float | None:
    try:
        share = float(text)
    except ValueError:
        return None
    return share if 0 < share <= 1 else None
