"""What is known of a visitor when a list is ranked for them: the open sessions, their vector, and what came before."""

from __future__ import annotations

from dataclasses import dataclass

from models.history import History
from models.sessions import Session, UserEmbedding


@dataclass(frozen=True, slots=True)
class Visitor:
    """A user's records of `user-embeddings` and `user-histories`, as they stand together."""

    embedding: UserEmbedding
    history: History | None = None
    """The closed sessions; None where there are none."""
    closed: tuple[Session, ...] = ()
    """Sessions that left the state already and that `history` does not name yet: the two topics have no common order."""
