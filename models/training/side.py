"""What is known of listings besides clicks, as codes: market, type, price and attributes.

Attributes are texts, truth values, or several texts at once; numbers are put into ranges.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from models.listings import RANGES, Listings

Codes = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Said = list[tuple[str, ...]]
"""For each listing the values that a field has."""

FIELDS = "market,type,price,attributes"
"""All there is: what settings choose unless told."""
ATTRIBUTE = "attributes."
NOTHING = -1
FEWEST = 2
"""What is said of fewer listings joins nothing, and has no code."""
MOST = 32
"""Of a field that says more than so many things of a listing, those count that it says of the fewest others."""


@dataclass(frozen=True, slots=True)
class Side:
    """F fields of n listings, in C columns with codes of V values. A field that says several things has several columns."""

    fields: list[str]
    values: list[str]
    """What each code means, as `field=value`."""
    codes: Codes
    """int32 [n, C]: a value, or NOTHING."""
    columns: Ints
    """int64 [C]: the field of each column."""

    def counts(self, counts: Ints) -> Ints:
        """How often each value was acted on, int64 [V], where the listings were `counts`, int64 [n]."""
        times = np.broadcast_to(counts[:, None], self.codes.shape)
        known = self.codes != NOTHING
        found: Ints = np.bincount(self.codes[known], times[known], len(self.values)).astype(np.int64)
        return found

    def drawn(self, rows: Ints, random: np.random.Generator) -> Ints:
        """One value of each of these listings, all with one chance, int64 [r]; NOTHING where none is known."""
        codes = self.codes[rows]
        chance = np.where(codes != NOTHING, random.random(codes.shape), -1)
        drawn: Ints = codes[np.arange(len(rows)), chance.argmax(axis=1)].astype(np.int64)
        return drawn


def known(listings: Listings, names: str, method: str) -> Side:
    """What the fields `names`, with commas between them, say of the listings: market, type, price (its range in the
    market), attributes, or one of those as attributes.NAME.

    Raises UserError where there is no such field, or where none says anything that would tell some listings from others.
    """
    fields: list[str] = []
    values: list[str] = []
    columns: list[int] = []
    codes: list[Codes] = []
    for field, bags in _chosen(listings, names).items():
        often = Counter(value for bag in bags for value in bag)
        shared = sorted(value for value, count in often.items() if count >= FEWEST)
        if not shared or (len(shared) == 1 and often[shared[0]] == len(bags)):
            continue
        code = {value: len(values) + at for at, value in enumerate(shared)}
        kept = [sorted(set(bag) & code.keys(), key=lambda value: (often[value], value)) for bag in bags]
        width = min(MOST, max(map(len, kept)))
        table = np.full((len(bags), width), NOTHING, np.int32)
        for row, bag in enumerate(kept):
            for at, value in enumerate(bag[:width]):
                table[row, at] = code[value]
        codes.append(table)
        columns += [len(fields)] * width
        fields.append(field)
        values += [f"{field}={value}" for value in shared]
    if not fields:
        raise UserError(
            f"{method} needs to know more of the listings than clicks, and of {names} nothing is known that some share"
            " and others don't; give it with --listings FILE, or choose another method"
        )
    return Side(fields, values, np.concatenate(codes, axis=1), np.array(columns, np.int64))


def said(listings: Listings) -> dict[str, Said]:
    """What is known of the n listings, by field: market, type, price, and the attributes by name."""
    rows = range(len(listings))
    fields: dict[str, Said] = {
        "market": [_values(listings.market(row)) for row in rows],
        "type": [_values(listings.type(row)) for row in rows],
        "price": [(str(value),) if value >= 0 else () for value in listings.ranges],
    }
    for name in sorted({name for row in rows for name in listings.attributes(row)}):
        fields[f"{ATTRIBUTE}{name}"] = _attribute(listings, name)
    return fields


def _chosen(listings: Listings, names: str) -> dict[str, Said]:
    everything = said(listings)
    attributes = {name: known for name, known in everything.items() if name.startswith(ATTRIBUTE)}
    chosen: dict[str, Said] = {}
    for name in (part.strip() for part in names.split(",")):
        if name == "attributes":
            chosen |= attributes
        elif name in everything:
            chosen[name] = everything[name]
        else:
            there = ", ".join([FIELDS.replace(",", ", "), *attributes])
            raise UserError(f"`side` can't name {name!r}; there are {there}")
    return chosen


def _attribute(listings: Listings, name: str) -> Said:
    found = [listings.attributes(row).get(name) for row in range(len(listings))]
    numbers = [value for value in found if isinstance(value, float | int) and not isinstance(value, bool)]
    edges = np.quantile(numbers, np.arange(1, RANGES) / RANGES) if numbers else np.empty(0)
    return [_values(value, edges) for value in found]


def _values(value: object, edges: npt.ArrayLike = ()) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, tuple):
        return value
    if isinstance(value, float | int) and not isinstance(value, bool):
        return (f"range {np.searchsorted(edges, value, side='right')}",)
    return (str(value),)
