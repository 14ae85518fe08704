"""The topics: their names, what they hold and how they must be set. Pure vocabulary: nothing here talks to a broker."""

from __future__ import annotations

from dataclasses import dataclass

DAY_MS = 24 * 60 * 60 * 1000
PARTITIONS = 4
RETENTION_MS = 7 * DAY_MS
"""What topics that are made get, where nothing else is asked for."""

MESSAGE_BYTES = 4 * 1024 * 1024
"""The longest record the worker may have to write: a history of 500 entries with the longest ids."""

CHECKPOINT_KEY = b"__checkpoint"
OLDEST = "oldest"
"""A header of checkpoints: the Kafka timestamp, ms, of the oldest record that its transaction applied; absent where it applied none."""
"""The reserved key of `user-embeddings` under which a partition's checkpoint stands."""


def numbers(text: str) -> frozenset[int]:
    """The partitions in `0-3,7`. Raises ValueError where there are none, or a range ends before it begins."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        some = range(int(first), int(last or first) + 1)
        if not some:
            raise ValueError(f"{part} ends before it begins")
        found.update(some)
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of the topics, under one common prefix."""

    prefix: str = ""

    @property
    def making(self) -> str:
        """The command that makes them."""
        return "insession topics" + (f" --topic-prefix {self.prefix}" if self.prefix else "")

    @property
    def clicks(self) -> str:
        return f"{self.prefix}clicks"

    @property
    def listings(self) -> str:
        return f"{self.prefix}listings"

    @property
    def user_embeddings(self) -> str:
        return f"{self.prefix}user-embeddings"

    @property
    def user_histories(self) -> str:
        return f"{self.prefix}user-histories"

    @property
    def sessions(self) -> str:
        return f"{self.prefix}sessions"

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}clicks-dead-letters"

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the worker writes; all have as many partitions as `clicks`."""
        return (self.user_embeddings, self.user_histories, self.sessions, self.dead_letters)

    @property
    def all(self) -> tuple[str, ...]:
        return (self.clicks, self.listings, *self.outputs)

    def settings(self, topic: str, *, retention_ms: int) -> dict[str, str]:
        """What the broker must be told of `topic`. `retention_ms` is for the topics that are not compacted; -1 keeps all."""
        if topic == self.listings:
            return {"cleanup.policy": "compact"}
        if topic in (self.user_embeddings, self.user_histories):
            return {"cleanup.policy": "compact", "max.message.bytes": str(MESSAGE_BYTES)}
        settings = {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}
        if topic == self.clicks:
            # One fast clock must not move anybody's windows: the broker itself refuses what is dated ahead.
            settings |= {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": "60000"}
        return settings
