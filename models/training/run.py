"""One training run: what a method is given besides its corpus and its settings, and what is kept of its epochs.

The loop stays in the method's file: `for epoch in run.epochs(...)` with `run.step(...)` in it. Here are the curves, early
stopping, and checkpoints from which the same run goes on.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from models.bundle import Epoch
from models.encoder import Learned
from models.errors import UserError
from models.types import Types

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int, str], None]
"""How much is done, of how much, and a note."""

CHECKPOINT = "checkpoint.safetensors"


class _Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside the tensors of a checkpoint."""

    version: int = 1
    what: str
    """A fingerprint of data, method and settings: only the same run goes on from it."""
    epochs: list[Epoch]
    best: int
    random: str
    """The state of the generator: whole numbers of 128 bits, in JSON."""


@dataclass(slots=True)
class Run:
    """A run. `random` is the only source of chance; `what` names the run among others, for its checkpoints."""

    random: np.random.Generator
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    threads: int = 1
    on_progress: Progress = lambda done, total, note: None
    validate: Callable[[Floats], float] | None = None
    """How good vectors, [n, d], are on what is held out: the greater the better."""
    patience: int = 0
    """Stop after so many epochs without a better validation, and go back to the best; 0: go on to the end."""
    checkpoints: Path | None = None
    what: str = ""
    before: int | None = None
    """The time (ms) before which all is that may be learned from; None: there is no such time."""
    warm: Floats | None = None
    """float32 [n, d]: vectors to start from, zeros for listings that have none."""
    curve: list[Epoch] = field(default_factory=list)
    """What came of each epoch."""
    metrics: dict[str, float] = field(default_factory=dict)
    """What else a method measured; it stands in the bundle."""
    types: Types | None = None
    """User types and listing types, from a method that learns them."""
    encoder: Learned | None = None
    """A session encoder, from a method that learns one."""
    _loss: float = 0.0
    _weight: float = 0.0
    _note: str = ""
    _epochs: int = 0

    def epochs(
        self, number: int, state: Mapping[str, Tensor], vectors: Callable[[], Floats]
    ) -> Iterator[int]:
        """The epochs to go through, from 0 or from where a checkpoint left off.

        `state` is all that changes from one to the next, in place; `vectors` makes of it what is validated. Raises
        UserError where the checkpoint is of another run, or can't be read or written.
        """
        kept = {name: tensor.clone() for name, tensor in state.items()} if self.patience else {}
        everything = dict(state) | {f"best.{name}": tensor for name, tensor in kept.items()}
        best = self._resume(everything)
        self._epochs = number
        for epoch in range(len(self.curve), number):
            if self.patience and 0 <= best <= epoch - 1 - self.patience:
                break
            self._loss = self._weight = 0.0
            self._note = f"epoch {epoch + 1} of {number}"
            yield epoch
            score = self.validate(vectors()) if self.validate is not None else None
            loss = self._loss / self._weight if self._weight else 0.0
            self.curve.append(Epoch(loss=loss, validation=score))
            if score is not None and (best < 0 or score > (self.curve[best].validation or 0.0)):
                best = epoch
                for name, tensor in kept.items():
                    tensor.copy_(state[name])
            self._save(everything, best)
        if self.patience and 0 <= best < len(self.curve) - 1:
            for name, tensor in kept.items():
                state[name].copy_(tensor)

    def step(self, loss: float, weight: float, done: int, total: int) -> None:
        """A part of an epoch is done: its summed loss over so many examples; `done` of `total` of the epoch.

        Raises UserError where the loss is no number any more.
        """
        if not math.isfinite(loss):
            raise UserError(
                f"{self._note}: the training diverges, its loss is {loss}; take a smaller learning_rate"
            )
        self._loss += loss
        self._weight += weight
        mean = self._loss / self._weight if self._weight else 0.0
        self.on_progress(
            len(self.curve) * total + done, self._epochs * total, f"{self._note}, loss {mean:.3f}"
        )

    def start(self, table: Tensor) -> None:
        """Put the vectors to start from, where there are any, in place of a table's random rows, [n, d]."""
        if self.warm is not None:
            known = self.warm.any(axis=1)
            table[torch.from_numpy(known).to(table.device)] = torch.from_numpy(self.warm[known]).to(
                table.device
            )

    def check(self) -> None:
        """Raise UserError where there is a checkpoint that is of another run, or can't be read."""
        self._resume(None)

    def _resume(self, state: Mapping[str, Tensor] | None) -> int:
        """Go on from the checkpoint, where there is one; the best epoch until then, -1 where there is none."""
        path = self.checkpoints / CHECKPOINT if self.checkpoints else None
        if path is None or not path.exists():
            return -1
        try:
            with safetensors.safe_open(path, "pt") as file:
                saved = msgspec.json.decode(file.metadata()["insession"], type=_Saved)
                if saved.what != self.what:
                    raise UserError(
                        f"{path}: a checkpoint of other data, another method or other settings; give another folder"
                        " with --checkpoints, or delete it"
                    )
                for name, tensor in (state or {}).items():
                    tensor.copy_(file.get_tensor(name))
        except (SafetensorError, msgspec.MsgspecError, OSError, KeyError, RuntimeError, TypeError) as error:
            raise UserError(f"{path}: not a checkpoint that can be read: {error}") from None
        if state is None:
            return saved.best
        self.curve[:] = saved.epochs
        self.random.bit_generator.state = json.loads(saved.random)
        return saved.best

    def _save(self, state: Mapping[str, Tensor], best: int) -> None:
        if self.checkpoints is None:
            return
        random = json.dumps(self.random.bit_generator.state)
        saved = _Saved(what=self.what, epochs=self.curve, best=best, random=random)
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            part = self.checkpoints / f".{CHECKPOINT}"
            tensors = {name: tensor.contiguous() for name, tensor in state.items()}
            safetensors.torch.save_file(tensors, part, {"insession": msgspec.json.encode(saved).decode()})
            part.replace(self.checkpoints / CHECKPOINT)
        except OSError as error:
            raise UserError(f"{self.checkpoints}: {error.strerror or error}") from None


def fingerprint(*parts: object) -> str:
    """A name for a run of this data, method and settings."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()
