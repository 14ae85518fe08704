"""User types and listing types: what many visitors of a kind do, where little is known of one.

Airbnb (Grbovic and Cheng, KDD 2018, section 3.2) embeds user types and listing types in one space, from booking
sequences; so does models/training/user_types.py. Unless that made them, the vectors are a factorisation of how much
oftener a type of user acts on a type of listing than chance has it (Levy and Goldberg, "Neural word embedding as
implicit matrix factorization", NIPS 2014).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from models import _kernel
from models.events import Version
from models.listings import NOTHING, Listing, Listings

DIMENSIONS = 8
DECIMALS = 6
FEWEST = 20
"""A type is learned from at least so many actions."""

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]


class Part(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One of the things that a listing's type is made of."""

    of: Annotated[str, msgspec.Meta(pattern=r"^(market|type|price_range|price|attributes\..+)$")]
    """`market`, `type`, `price_range` (in its market), `price`, or `attributes.` and a name."""
    edges: list[float] = []
    """Numbers from one edge up to the next are alike; without edges each number is a value of its own. Of a list, the
    number is how many it has."""

    def value(self, listing: Listing, price_range: int) -> str:
        """What the listing has of it; empty where that is not known."""
        if self.of == "price_range":
            return str(price_range)
        name = self.of.removeprefix("attributes.")
        known = listing.attributes.get(name) if name != self.of else getattr(listing, name)
        if known is None or isinstance(known, str | bool):
            return "" if known is None else str(known)
        number = float(len(known)) if isinstance(known, tuple) else float(known)
        return str(int(np.searchsorted(self.edges, number, side="right"))) if self.edges else f"{number:g}"


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """The types on disk: a unit vector for each."""

    users: dict[str, list[float]]
    listings: dict[str, list[float]]
    version: Version = 1
    by: tuple[Part, ...] | msgspec.UnsetType = msgspec.UNSET
    """What listing types are made of, where that is not the type and the price range."""


_decoder = msgspec.json.Decoder(Saved)


def listing_type(kind: str | None, price_range: int) -> str:
    """The type of a listing of this kind, in this price range of its market (NOTHING: without a price)."""
    return f"{kind or ''}/{price_range}"


def made_of(parts: Sequence[Part], listing: Listing, price_range: int) -> str:
    """The type of a listing, in this price range of its market, that is made of these parts."""
    return "/".join(part.value(listing, price_range) for part in parts)


user_type = _kernel.user_type
"""The type of a user who has acted so often, in two weeks, on listings of which so many have a price range: how often, the
ranges' mean, and whether anything was booked. Takes `actions`, the sum of the ranges, `priced` and `booked`."""


class Types:
    """The vectors of the types; without any, nobody is similar to anything."""

    def __init__(self, saved: Saved) -> None:
        self.saved = saved
        self.codes = {name: code for code, name in enumerate(saved.listings)}
        """By listing type."""
        self.users = {name: np.array(vector, np.float32) for name, vector in saved.users.items()}
        self._listings = np.array(list(saved.listings.values()) or np.empty((0, 0)), np.float32)
        self.similarities = {name: self._listings @ vector for name, vector in self.users.items()}
        """How similar each user type is to each listing type, float32 [T], by user type."""

    def code(self, listing: Listing, listings: Listings) -> int:
        """The type of a listing, in a market of `listings`."""
        price_range = listings.range_of(listing.market, listing.price)
        if self.saved.by is msgspec.UNSET:
            return self.codes.get(listing_type(listing.type, price_range), NOTHING)
        return self.codes.get(made_of(self.saved.by, listing, price_range), NOTHING)

    def of(self, listings: Listings) -> Codes:
        """The type of each listing, int32 [n]."""
        get, by = self.codes.get, self.saved.by
        if by is not msgspec.UNSET:
            names = (made_of(by, listings.get(row), range_) for row, range_ in enumerate(listings.ranges))
            return np.fromiter((get(name, NOTHING) for name in names), np.int32, len(listings))
        kinds = listings.columns.type or [None] * len(listings)
        pairs = zip(kinds, listings.ranges, strict=True)
        return np.fromiter((get(listing_type(*pair), NOTHING) for pair in pairs), np.int32, len(listings))

    def encode(self) -> bytes:
        """The types as JSON."""
        return msgspec.json.format(msgspec.json.encode(self.saved), indent=1)


NONE = Types(Saved(users={}, listings={}))
"""The types of a bundle that has none."""


def decode(content: bytes) -> Types:
    """Types from their JSON. Raises msgspec.MsgspecError or ValueError where it is none."""
    saved = _decoder.decode(content)
    if len({len(vector) for vector in (*saved.users.values(), *saved.listings.values())}) > 1:
        raise ValueError("the types' vectors differ in length")
    return Types(saved)


def learn(counts: Mapping[tuple[str, str], int]) -> Types:
    """The types, from how often a user type acted on a listing type.

    With p the share of each pair among all, M[u, l] = max(0, log(p(u, l) / (p(u) p(l)))) = A S B, halved evenly as Levy
    and Goldberg's symmetric factorisation does: a user type's vector is A sqrt(S), a listing type's B sqrt(S), each at
    length one.
    """
    by_user, by_listing = Counter[str](), Counter[str]()
    for (user, listing), count in counts.items():
        by_user[user] += count
        by_listing[listing] += count
    users = sorted(name for name, count in by_user.items() if count >= FEWEST)
    listings = sorted(name for name, count in by_listing.items() if count >= FEWEST)
    if len(users) < 2 or len(listings) < 2:
        return NONE
    often = np.array([[counts.get((user, listing), 0) for listing in listings] for user in users], np.float64)
    chance = often.sum(axis=1, keepdims=True) * often.sum(axis=0, keepdims=True) / often.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = np.maximum(np.nan_to_num(np.log(often / chance), nan=0.0, neginf=0.0), 0)
    left, sizes, right = np.linalg.svd(surprise, full_matrices=False)
    kept = min(DIMENSIONS, len(sizes))
    scale = np.sqrt(sizes[:kept])
    return Types(
        Saved(users=named(users, left[:, :kept] * scale), listings=named(listings, right[:kept].T * scale))
    )


def named(names: list[str], vectors: npt.NDArray[np.float64]) -> dict[str, list[float]]:
    """The vectors, [n, d], by name and at length one, as they are saved."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = np.round(vectors / np.where(lengths > 1e-9, lengths, 1), DECIMALS) + 0.0
    return dict(zip(names, units.tolist(), strict=True))
