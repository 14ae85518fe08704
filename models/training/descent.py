"""How tables and weights move: Adagrad, which keeps all it knows in tensors that a checkpoint can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from models.errors import UserError

T = TypeVar("T")
TINY = 1e-10


class Adagrad:
    """Moves parameters by the gradient of a value that was made of what it gave out of them.

    Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic optimization", JMLR 2011,
    with one accumulator a number. Of a table of which some rows were taken, only those move; the moves of a row that
    was taken more than once are added up first.
    """

    def __init__(self, parameters: Mapping[str, Tensor], learning_rate: float) -> None:
        self._parameters = parameters
        self._sums = {name: torch.full_like(tensor, TINY) for name, tensor in parameters.items()}
        self._learning_rate = learning_rate
        self._given: list[tuple[str, Tensor | None, Tensor]] = []

    @property
    def state(self) -> dict[str, Tensor]:
        """All that changes: for `run.epochs`."""
        return dict(self._parameters) | {f"{name}.sums": tensor for name, tensor in self._sums.items()}

    def rows(self, name: str, which: Tensor) -> Tensor:
        """The rows `which`, [...], of a table, [n, d], as [..., d]: for the next step."""
        taken = self._parameters[name][which].requires_grad_()
        self._given.append((name, which.reshape(-1), taken))
        return taken

    def whole(self, name: str) -> Tensor:
        """The parameter itself: for the next step."""
        taken = self._parameters[name].detach().clone().requires_grad_()
        self._given.append((name, None, taken))
        return taken

    def step(self, value: Tensor) -> None:
        """Descend from the value, by all that was given out since the last step."""
        given, self._given = self._given, []
        gradients = torch.autograd.grad(value, [taken for _, _, taken in given])
        moved: dict[str, list[tuple[Tensor | None, Tensor]]] = {}
        for (name, which, _), gradient in zip(given, gradients, strict=True):
            moved.setdefault(name, []).append((which, gradient))
        for name, moves in moved.items():
            table, sums = self._parameters[name], self._sums[name]
            if any(which is None for which, _ in moves):
                whole = torch.zeros_like(table)
                for which, gradient in moves:
                    if which is None:
                        whole += gradient
                    else:
                        whole.index_add_(0, which, gradient.reshape(-1, table.shape[1]))
                sums += whole.square()
                table -= self._learning_rate * whole / sums.sqrt()
                continue
            rows = torch.cat([which for which, _ in moves if which is not None])
            gradient = torch.cat([gradient.reshape(-1, table.shape[1]) for _, gradient in moves])
            distinct, place = torch.unique(rows, return_inverse=True)
            total = gradient.new_zeros(len(distinct), table.shape[1]).index_add_(0, place, gradient)
            size = sums[distinct] + total.square()
            sums[distinct] = size
            table[distinct] -= self._learning_rate * total / size.sqrt()


def random_table(random: np.random.Generator, size: int, dimensions: int, device: torch.device) -> Tensor:
    """float32 [size, dimensions]: uniform numbers, the smaller the more dimensions there are."""
    scale = 0.5 / dimensions
    return torch.from_numpy(random.uniform(-scale, scale, (size, dimensions)).astype(np.float32)).to(device)


def named(table: Mapping[str, T], setting: str, name: str, *others: str) -> T:
    """What has this name in a table of losses or regularisers. Raises UserError where nothing has."""
    if name not in table:
        raise UserError(f"`{setting}` must be one of {', '.join((*table, *others))}, not {name!r}")
    return table[name]
