"""User types and listing types in one space, from what was booked.

Grbovic and Cheng, "Real-time personalization using embeddings for search ranking at Airbnb", KDD 2018, section 3.2. A
user's bookings are a sequence of pairs, the type that the user then had and the type of the listing; skip-gram runs over it
with either as centre (equations 6 and 7), and a refusal by the host sets the two types apart (equations 8 and 9). What the
types are is data in a file (user_types.toml).

Where most users book once, a user type and a listing type are hardly ever in like company, so that their vectors v alone
would not be near; each type's vector here is the sum of v and its context vector v', as Pennington, Socher and
Manning do ("GloVe: global vectors for word representation", EMNLP 2014, section 4.2): the product of two such sums holds v_u
v'_l + v_l v'_u, which is what the equations fit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from msgspec import Meta
from torch.nn.functional import logsigmoid

from models.errors import UserError
from models.training import descent
from models.training.corpus import BOOKING, REJECTION, Corpus
from models.training.losses import LOSSES, NEVER
from models.training.noise import Unigram
from models.training.run import Floats, Run, fingerprint
from models.training.skip_gram import unit
from models.training.user_histories import typed
from models.types import Part, Saved, Types, made_of, named

Ints = npt.NDArray[np.int64]

RULES = Path(__file__).with_suffix(".toml")
OFTEN = (3, 10)
"""Where the number of actions may part users,"""
RANGES = tuple(range(5))
"""and the price ranges there are: a ranking tells users apart by these."""


@dataclass(frozen=True, slots=True)
class UserTypes:
    """The settings of the training."""

    rules: str = ""
    """A TOML file of what makes the types; empty: the one beside this file."""
    dimensions: Annotated[int, Meta(ge=2, le=1024)] = 16
    epochs: Annotated[int, Meta(ge=1)] = 20
    window: Annotated[int, Meta(ge=1, le=100)] = 5
    """In types, of which each booking has two."""
    fewest: Annotated[int, Meta(ge=1)] = 5
    """A type is learned from at least so many bookings."""
    negatives: Annotated[int, Meta(ge=1, le=1000)] = 5
    """Types drawn for each pair."""
    noise_exponent: Annotated[float, Meta(ge=-1, le=1)] = 0.75
    """Negatives are drawn by frequency to this power."""
    rejections: Annotated[float, Meta(ge=0)] = 1.0
    """What a rejection weighs beside a pair of a booking."""
    learning_rate: Annotated[float, Meta(gt=0, le=10)] = 0.05
    block: Annotated[int, Meta(ge=1)] = 256
    """Pairs in a step."""


class Users(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How users are told apart."""

    actions: tuple[int, ...] = OFTEN
    price_ranges: tuple[tuple[int, ...], ...] = tuple((each,) for each in RANGES)
    booked: bool = True

    def group(self, often: int, range_: int, booked: bool) -> tuple[int, int, bool]:
        """The type of users who acted so often (a place between OFTEN), whose mean price range is this one."""
        between = sum(edge <= (0, *OFTEN)[often] for edge in self.actions)
        alike = next((at for at, ranges in enumerate(self.price_ranges) if range_ in ranges), -1)
        return between, alike, booked and self.booked


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of rules."""

    listing: list[Part]
    user: Users = Users()

    def users(self) -> dict[str, str]:
        """By the name that a ranking gives a type of user (see models.types.user_type), the type that it is here."""
        return {
            f"{often}/{range_}/{int(booked)}": "/".join(map(str, self.user.group(often, range_, booked)))
            for often in range(len(OFTEN) + 1)
            for range_ in (-1, *RANGES)
            for booked in (False, True)
        }


def read_rules(path: Path) -> Rules:
    """The rules of a file. Raises UserError where they are none, or a ranking could not tell such users apart."""
    try:
        rules = msgspec.toml.decode(path.read_bytes(), type=Rules)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path}: not rules of user types and listing types: {error}") from None
    ranges = sorted(each for ranges in rules.user.price_ranges for each in ranges)
    if not rules.listing:
        raise UserError(f"{path}: `listing` must have a part at least")
    if not set(rules.user.actions) <= set(OFTEN):
        raise UserError(f"{path}: `user.actions` can part users at 3 and 10 alone, as rankings do")
    if ranges != list(RANGES):
        raise UserError(f"{path}: `user.price_ranges` must have each of 0 to {RANGES[-1]} once")
    return rules


def train(corpus: Corpus, settings: UserTypes, run: Run) -> Floats:
    """Vectors for the n listings of the corpus, float32 [n, d], which must have every action: those of their types, at
    length one; zeros where a type was booked too seldom. `run.types` gets the types.

    Raises UserError where the rules can't be read, there are no bookings, or listings are all of one type.
    """
    path = Path(settings.rules) if settings.rules else RULES
    rules = read_rules(path)
    run.what = fingerprint(run.what, msgspec.json.encode(rules))
    booked = Bookings(corpus, rules, settings.fewest)
    run.metrics |= booked.metrics
    left, right = booked.pairs(settings.window)
    random, device, size = run.random, run.device, len(booked.names)
    noise = Unigram(np.bincount(np.concatenate(booked.sequences), minlength=size), settings.noise_exponent)
    table = descent.random_table(random, size, settings.dimensions, device)
    around = torch.zeros_like(table)
    descend = descent.Adagrad({"table": table, "around": around}, settings.learning_rate)
    of_listing = booked.of_listing

    def vectors() -> Floats:
        both = (table + around).cpu().numpy()
        return unit(both[of_listing.clip(min=0)] * (of_listing >= 0)[:, None])

    def product(one: Ints, other: Ints) -> torch.Tensor:
        centre = descend.rows("table", torch.from_numpy(one).to(device))
        context = descend.rows("around", torch.from_numpy(other).to(device))
        return (context @ centre[:, :, None]).squeeze(2)

    for _ in run.epochs(settings.epochs, descend.state, vectors):
        order = random.permutation(len(left))
        apart = random.permutation(len(booked.refused))
        for start in range(0, len(order), settings.block):
            end = min(start + settings.block, len(order))
            these = order[start:end]
            others = np.column_stack([right[these], noise.draw(random, len(these), settings.negatives)])
            scores = product(left[these], others)
            same = torch.from_numpy(others[:, 1:] == others[:, :1]).to(device)
            negative = scores[:, 1:].masked_fill(same, NEVER)
            value = LOSSES["log-sigmoid"](scores[:, 0], negative).sum()
            # Each epoch has every refusal once, spread over its blocks.
            first, last = (len(apart) * at // len(order) for at in (start, end))
            refused = booked.refused[apart[first:last]]
            if len(refused):
                both = np.concatenate([refused, refused[:, ::-1]])
                value = value - settings.rejections * logsigmoid(-product(both[:, 0], both[:, 1:])).sum()
            descend.step(value)
            run.step(value.item(), len(these), end, len(order))
    run.types = booked.types((table + around).cpu().numpy().astype(np.float64), rules)
    return vectors()


class Bookings:
    """What was booked, and refused, as types of users and listings."""

    def __init__(self, corpus: Corpus, rules: Rules, fewest: int) -> None:
        """Raises UserError where there is nothing to learn from."""
        self._of_name = rules.users()
        listings = corpus.listings
        kinds = [made_of(rules.listing, listings.get(row), at) for row, at in enumerate(listings.ranges)]
        sequences, refused = _gathered(corpus, self._of_name)
        pairs = [(f"user {user}", kinds[row]) for bookings in sequences for user, row in bookings]
        often = Counter(name for pair in pairs for name in pair)
        users = sorted({user for user, _ in pairs if often[user] >= fewest})
        kept = sorted({kind for _, kind in pairs if often[kind] >= fewest})
        if not pairs:
            raise UserError(
                "user-types needs bookings by users who acted on something within the two weeks before, and there are none"
            )
        if len(set(kinds)) < 2:
            raise UserError(
                "user-types needs to know what listings are, and all are of one type: give --listings FILE with the"
                " types and prices, or other rules with --set rules=FILE"
            )
        if len(kept) < 2 or not users:
            raise UserError(
                f"user-types needs two types of listings that were booked {fewest} times each, and there are {len(kept)}:"
                " give more data, coarser rules (--set rules=FILE), or --set fewest=N"
            )
        self.names = [*users, *kept]
        """The types: of users first."""
        self._users = len(users)
        code = {name: at for at, name in enumerate(self.names)}
        of_kind = {name: code[name] for name in kept}
        self.of_listing: Ints = np.array([of_kind.get(kind, -1) for kind in kinds], np.int64)
        """int64 [n]: each listing's type, -1 for one that was booked too seldom."""
        self.sequences: list[Ints] = []
        """The types of each user's bookings, one after the other: user, listing, user, listing, ..."""
        for bookings in sequences:
            types = [name for user, row in bookings for name in (f"user {user}", kinds[row])]
            known = [code[name] for name in types if name in code]
            if known:
                self.sequences.append(np.array(known, np.int64))
        both = [(f"user {user}", kinds[row]) for user, row in refused]
        self.refused: Ints = np.array(
            [(code[user], code[kind]) for user, kind in both if user in code and kind in of_kind], np.int64
        ).reshape(-1, 2)
        """int64 [r, 2]: the types of user and listing of each refusal."""
        self.metrics = {
            "bookings": float(len(pairs)),
            "rejections": float(len(self.refused)),
            "user_types": float(len(users)),
            "listing_types": float(len(kept)),
        }

    def pairs(self, window: int) -> tuple[Ints, Ints]:
        """Centres and contexts at most so far apart in a sequence, of different types: int64 [p], twice."""
        tokens = np.concatenate(self.sequences)
        of = np.repeat(np.arange(len(self.sequences)), [len(each) for each in self.sequences])
        left, right = [tokens[:0]], [tokens[:0]]
        for apart in range(1, min(window, len(tokens) - 1) + 1):
            near = (of[apart:] == of[:-apart]) & (tokens[apart:] != tokens[:-apart])
            one, other = tokens[:-apart][near], tokens[apart:][near]
            left += [one, other]
            right += [other, one]
        return np.concatenate(left), np.concatenate(right)

    def types(self, vectors: npt.NDArray[np.float64], rules: Rules) -> Types:
        """The types of the vectors, [number of names, d]: every name that a ranking may give a user has its type's."""
        by_type = named(self.names, vectors)
        users = {
            name: by_type[f"user {group}"]
            for name, group in self._of_name.items()
            if f"user {group}" in self.names[: self._users]
        }
        listings = {name: by_type[name] for name in self.names[self._users :]}
        return Types(Saved(users=users, listings=listings, by=tuple(rules.listing)))


def _gathered(
    corpus: Corpus, of_name: dict[str, str]
) -> tuple[list[list[tuple[str, int]]], list[tuple[str, int]]]:
    """Each user's bookings, and all refusals: the type that the user had, and the listing. A booking that was refused is
    none; a refusal is of the type that the user had when booking, where that is known."""
    sequences: dict[int, list[tuple[str, int]]] = {}
    refused: list[tuple[str, int]] = []
    for user, row, kind, _, name in typed(corpus):
        if name is None or kind not in (BOOKING, REJECTION):
            continue
        bookings = sequences.setdefault(user, [])
        if kind == BOOKING:
            bookings.append((of_name[name], row))
            continue
        at = next((at for at in reversed(range(len(bookings))) if bookings[at][1] == row), None)
        refused.append((of_name[name], row) if at is None else bookings.pop(at))
    return [bookings for bookings in sequences.values() if bookings], refused
