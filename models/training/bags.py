"""What is said of listings, as bags of codes: the words of a text, and the values of attributes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from models.listings import Listings
from models.training import side

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
    """The words of an attribute that is a text or several, in small letters."""
    said = (listings.attributes(row).get(attribute) for row in range(len(listings)))
    texts = (" ".join(text) if isinstance(text, tuple) else text for text in said)
    return _bags(_WORD.findall(text.lower()) if isinstance(text, str) else () for text in texts)


def values(listings: Listings, without: str) -> Bags:
    """Market, type, price range in the market, and every attribute but the one named."""
    fields = side.said(listings)
    fields.pop(f"{side.ATTRIBUTE}{without}", None)
    return _bags(
        [f"{name}={value}" for name, said in fields.items() for value in said[row]]
        for row in range(len(listings))
    )


def _bags(said: Iterable[Iterable[str]]) -> Bags:
    bags = [sorted(set(bag)) for bag in said]
    often = Counter(name for bag in bags for name in bag)
    names = sorted(name for name, count in often.items() if count >= side.FEWEST)
    code = {name: number for number, name in enumerate(names)}
    kept = [[code[name] for name in bag if name in code] for bag in bags]
    starts = np.cumsum([0, *map(len, kept)])
    return Bags(names, np.array([each for bag in kept for each in bag], np.int64), starts.astype(np.int64))
