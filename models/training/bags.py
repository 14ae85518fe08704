"""What is said of listings, as bags of codes: the words of a text, and the values of attributes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from models.listings import Listings

FEWEST = 2
"""What is said of fewer listings joins nothing, and has no code."""
PARTS = 5
"""A number falls into so many ranges, each of as many listings."""
_WORD = re.compile(r"\w+")

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bags:
    """A bag of codes for each listing: listing i has `codes[starts[i]:starts[i + 1]]`."""

    names: list[str]
    """What each code means."""
    codes: Ints
    starts: Ints

    def means(self, table: Tensor, rows: Ints) -> Tensor:
        """The mean of the rows of a table, [len(names), d], that each of these listings has codes of: [r, d], zeros for
        an empty bag."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        offsets = np.cumsum(lengths) - lengths
        flat = np.arange(lengths.sum()) + np.repeat(self.starts[rows] - offsets, lengths)
        which, begins = torch.from_numpy(self.codes[flat]), torch.from_numpy(offsets)
        return embedding_bag(which.to(table.device), table, begins.to(table.device), mode="mean")


def words(listings: Listings, attribute: str) -> Bags:
    """The words of a text attribute, in small letters."""
    texts = (listings.attributes(row).get(attribute) for row in range(len(listings)))
    return _bags(_WORD.findall(text.lower()) if isinstance(text, str) else () for text in texts)


def values(listings: Listings, without: str) -> Bags:
    """Market, type, price range in the market, and every attribute but the one named."""
    numbers: dict[str, list[float]] = {}
    for row in range(len(listings)):
        for name, value in listings.attributes(row).items():
            if isinstance(value, float | int) and not isinstance(value, bool):
                numbers.setdefault(name, []).append(value)
    edges = {name: np.quantile(known, np.arange(1, PARTS) / PARTS) for name, known in numbers.items()}

    def said(row: int) -> Iterator[str]:
        for name, known in (("market", listings.market(row)), ("type", listings.type(row))):
            if known is not None:
                yield f"{name}={known}"
        if listings.ranges[row] >= 0:
            yield f"price range={listings.ranges[row]}"
        for name, value in listings.attributes(row).items():
            if name == without:
                continue
            if isinstance(value, tuple):
                yield from (f"attributes.{name}={each}" for each in value)
            elif isinstance(value, str | bool):
                yield f"attributes.{name}={value}"
            else:
                yield f"attributes.{name} range={np.searchsorted(edges[name], value, side='right')}"

    return _bags(said(row) for row in range(len(listings)))


def _bags(said: Iterable[Iterable[str]]) -> Bags:
    bags = [sorted(set(bag)) for bag in said]
    often = Counter(name for bag in bags for name in bag)
    names = sorted(name for name, count in often.items() if count >= FEWEST)
    code = {name: number for number, name in enumerate(names)}
    kept = [[code[name] for name in bag if name in code] for bag in bags]
    starts = np.cumsum([0, *map(len, kept)])
    return Bags(names, np.array([each for bag in kept for each in bag], np.int64), starts.astype(np.int64))
