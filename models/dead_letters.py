"""What stands on `clicks-dead-letters`: records that were not applied, and why."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

BYTES = 64 * 1024
"""A dead letter carries at most so many bytes of the value, and of the key, that was not applied."""


class DeadLetter(NamedTuple):
    """A record of `clicks` that was not applied."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    reason: str
    detail: str

    def headers(self, topic: str, partition: int) -> list[tuple[str, str | bytes | None]]:
        """Where it came from and why it is here; the length and hash of the whole value."""
        value = self.value or b""
        facts = {
            "reason": self.reason,
            "detail": self.detail[:1000],
            "topic": topic,
            "partition": str(partition),
            "offset": str(self.offset),
            "timestamp": str(self.timestamp),
            "length": str(len(value)),
            "sha256": hashlib.sha256(value).hexdigest(),
        }
        return [(name, fact.encode(errors="replace")) for name, fact in facts.items()]


def cut(content: bytes | None) -> bytes | None:
    """What a dead letter carries of a key or value."""
    return content and content[:BYTES]
