"""How far a worker has come, as its checkpoints say."""

from __future__ import annotations

import msgspec

from models.states import Checkpoint
from models.topics import CHECKPOINT_KEY, Topics
from streams.reader import Reader


class Checkpoints:
    """The newest checkpoint of each partition; each look reads on from where the last one ended."""

    def __init__(self, source: Reader, names: Topics, partitions: int) -> None:
        self.offsets: dict[int, int] = {}
        """The next offset of `clicks`, by partition."""
        self._source, self._names, self._partitions = source, names, partitions
        self._positions: dict[int, int] = {}

    def look(self) -> dict[int, int]:
        """Read what is new; gives `offsets`."""
        topic = self._names.user_embeddings
        for number in range(self._partitions):
            position = self._positions.get(number)
            place = (number,) if position is None else (number, position)
            for messages, behind in self._source.read(topic, *place):
                self._positions[number] = behind
                for message in messages:
                    if message.key() == CHECKPOINT_KEY:
                        found = msgspec.json.decode(message.value() or b"", type=Checkpoint)
                        self.offsets[number] = found.next_offset
        return self.offsets
