"""A recording run without a broker: the worker's own partitions over states in memory."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import get_args

from models.bundle import Bundle
from models.dead_letters import DeadLetter
from models.events import Event
from models.partition import Changes, Partition
from models.recording import Record, home
from models.states import Memory

BATCH = 100_000
"""Records between two flushes; any number gives the same, and a larger one encodes fewer states."""
STEP = 5_000
"""Records between two looks at the progress."""
_FACTS = struct.Struct("<qqqq").pack
KINDS: tuple[str, ...] = tuple(kind.__struct_config__.tag for kind in get_args(Event))


class Offline:
    """The partitions of a topic, each with its states in memory; `take` is given each partition's changes.

    Records must have their partition and offset.
    """

    def __init__(self, bundle: Bundle | None, take: Callable[[int, Changes], None]) -> None:
        self._bundle = bundle
        self._take = take
        self._partitions: dict[int, Partition] = {}
        self._states: dict[int, Memory] = {}

    def partition(self, number: int) -> Partition:
        """A partition, as it stands behind the last record applied."""
        partition = self._partitions.get(number)
        if partition is None:
            states = self._states[number] = Memory()
            partition = self._partitions[number] = Partition(number, bundle=self._bundle, states=states)
        return partition

    def apply(self, record: Record) -> None:
        """Apply a record."""
        partition = self._partitions.get(record.partition) or self.partition(record.partition)  # type: ignore[arg-type]
        partition.apply(record.offset, record.timestamp, record.key, record.value)  # type: ignore[arg-type]

    def flush(self) -> None:
        """End the batch of every partition, until nothing is due any more."""
        for number, partition in self._partitions.items():
            more = True
            while more:
                changes = partition.flush()
                self._states[number].write(changes.store)
                self._take(number, changes)
                more = changes.more


def placed(records: Iterable[Record], partitions: int) -> Iterator[Record]:
    """The records, each with its partition of so many and, where it has none, the offset it will have on a fresh topic."""
    offsets: dict[int, int] = {}
    for record in records:
        record.partition = number = home(record, partitions)
        if record.offset is None:
            record.offset = offsets.get(number, 0)
        offsets[number] = record.offset + 1
        yield record


@dataclass(slots=True)
class Outputs:
    """What a partition has on the output topics in the end; a null value says that the key is gone."""

    embeddings: dict[bytes, bytes | None] = field(default_factory=dict)
    histories: dict[bytes, bytes | None] = field(default_factory=dict)
    sessions: list[tuple[bytes, bytes]] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)


@dataclass(slots=True)
class Result:
    """What a run came to."""

    events: int = 0
    """Records applied or not, of any kind."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Events that were on time by kind, duplicates too;"""
    duplicates: int = 0
    """so many came again, or were forgotten already."""
    dead: Counter[str] = field(default_factory=Counter)
    """Dead letters by reason."""
    sessions: int = 0
    """Sessions closed."""
    users: int = 0
    """Users with at least one event that was applied."""
    outputs: dict[int, Outputs] = field(default_factory=dict)
    """By partition, where they were to be kept."""
    next_offsets: dict[int, int] = field(default_factory=dict)
    """The offset behind each partition's last record."""
    recording: str = ""
    """The fingerprint of all that a result depends on: each partition's records, in any order of the partitions."""


def run(
    records: Iterable[Record],
    bundle: Bundle | None,
    *,
    keep: bool = False,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Result:
    """Run the records, which have their partitions and offsets, and say what came of it; with `keep`, all of it."""
    result = Result()
    counts: Counter[str] = Counter()
    users: dict[int, set[bytes]] = {}

    def take(number: int, changes: Changes) -> None:
        counts.update(changes.counts)
        result.sessions += len(changes.sessions)
        result.dead.update(letter.reason for letter in changes.dead)
        users.setdefault(number, set()).update(changes.embeddings)
        if keep:
            outputs = result.outputs.setdefault(number, Outputs())
            outputs.embeddings.update(changes.embeddings)
            outputs.histories.update(changes.histories)
            outputs.sessions += changes.sessions
            outputs.dead += changes.dead

    offline = Offline(bundle, take)
    prints = _Fingerprints()
    for record in records:
        offline.apply(record)
        prints.add(record)
        result.events += 1
        if result.events % STEP == 0:
            prints.flush()
            on_progress(result.events)
        if result.events % BATCH == 0:
            offline.flush()
    offline.flush()
    on_progress(result.events)
    result.kinds = Counter({kind: counts[kind] for kind in KINDS if counts[kind]})
    result.duplicates = counts["duplicate"] + counts["forgotten"]
    result.users = sum(map(len, users.values()))
    result.next_offsets = prints.next_offsets
    result.recording = prints.digest()
    return result


class _Fingerprints:
    def __init__(self) -> None:
        self.next_offsets: dict[int, int] = {}
        self._pieces: defaultdict[int, list[bytes]] = defaultdict(list)
        self._hashes: dict[int, hashlib._Hash] = {}

    def add(self, record: Record) -> None:
        number, offset, key, value = record.partition, record.offset, record.key, record.value
        assert number is not None
        assert offset is not None
        self.next_offsets[number] = offset + 1
        facts = _FACTS(
            offset, record.timestamp, -1 if key is None else len(key), -1 if value is None else len(value)
        )
        self._pieces[number] += (facts, key or b"", value or b"")

    def flush(self) -> None:
        for number, pieces in self._pieces.items():
            self._hashes.setdefault(number, hashlib.sha256()).update(b"".join(pieces))
            pieces.clear()

    def digest(self) -> str:
        self.flush()
        whole = hashlib.sha256()
        for number in sorted(self._hashes):
            whole.update(b"%d %s\n" % (number, self._hashes[number].digest()))
        return whole.hexdigest()
