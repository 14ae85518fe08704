"""What is known of a visitor when a list is ranked for them: the open sessions, their vector, and what came before."""

from __future__ import annotations

from functools import cached_property

import msgspec

from models import _kernel
from models.history import History
from models.sessions import WINDOWS, Session, UserEmbedding, Windows
from models.states import decode_embedding, decode_history

_encode = msgspec.json.Encoder().encode
_sessions = msgspec.json.Decoder(tuple[Session, ...])


class Visitor:
    """A user's records as they stand together: read by the kernel, and decoded where something else asks for them."""

    def __init__(self, embedding: bytes, history: bytes | None = None, closed: bytes | None = None) -> None:
        """The records of `user-embeddings` and `user-histories`, None where there is none, and the sessions that left
        the first and that the second does not name yet: the two topics have no common order.

        Raises ValueError where they can't be read.
        """
        self.known = _kernel.Visitor(embedding, history, closed)
        self._records: tuple[bytes, bytes | None, bytes | None] | None = (embedding, history, closed)

    @classmethod
    def of(
        cls, embedding: UserEmbedding, history: History | None = None, closed: tuple[Session, ...] = ()
    ) -> Visitor:
        """The visitor of these records."""
        return cls(
            _encode(embedding),
            _encode(history) if history is not None else None,
            _encode(closed) if closed else None,
        )

    @classmethod
    def unpacked(cls, packed: bytes) -> Visitor:
        """The inverse of `packed`, which has all that rankings need but no records to decode."""
        made = cls.__new__(cls)
        made.known = _kernel.Visitor.unpacked(packed)
        made._records = None
        return made

    @property
    def packed(self) -> bytes | None:
        """What rankings need, in a third of the records' bytes; None where that can't be had."""
        return self.known.packed()

    def replaced(self, embedding: UserEmbedding) -> Visitor:
        """The same visitor with another record of `user-embeddings`."""
        return Visitor(_encode(embedding), *self._whole[1:])

    @property
    def _whole(self) -> tuple[bytes, bytes | None, bytes | None]:
        assert self._records is not None, "a packed visitor has no records"
        return self._records

    def open(self, timestamp: int, windows: Windows = WINDOWS) -> bool:
        """Whether a session is open at `timestamp`: the newest is, unless its last event is more than the gap before."""
        return self.known.open(timestamp, windows.gap)

    def session(self, timestamp: int, windows: Windows = WINDOWS) -> Session | None:
        """The session that is open at `timestamp`."""
        return self.embedding.state.sessions[-1] if self.open(timestamp, windows) else None

    def deeds(self, timestamp: int, windows: Windows = WINDOWS) -> int:
        """How many things were done in the sessions that ended within two weeks before `timestamp`, open ones too."""
        return self.known.deeds(timestamp - windows.history)

    @cached_property
    def embedding(self) -> UserEmbedding:
        """With the vector of the bundle it was asked for."""
        record = decode_embedding(self._whole[0])
        if record.bundle == self.known.bundle:
            return record
        return msgspec.structs.replace(record, bundle=self.known.bundle, vector=self.known.vector)

    @cached_property
    def history(self) -> History | None:
        """The closed sessions; None where there are none."""
        value = self._whole[1]
        return decode_history(value) if value is not None else None

    @cached_property
    def closed(self) -> tuple[Session, ...]:
        """The sessions that `history` does not name yet."""
        value = self._whole[2]
        return _sessions.decode(value) if value is not None else ()
