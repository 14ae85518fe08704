"""A recording that grows: begun or gone on with, and whole at its path whatever ends the work."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

import msgspec
import zstandard

from models import lines
from models.errors import UserError
from models.recording import Header, Record, encode, read

FRAME_BYTES = 1 << 22
"""Bytes of lines in a frame; what is in none yet is lost with the process, and read again from the topic."""


class Standing:
    """How far the recording of a topic has come."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.positions = list(header.beginnings)
        """The offset that comes next, by partition,"""
        self.latest = [0] * header.partitions
        """and the greatest timestamp so far, ms."""
        self.records = 0

    def add(self, record: Record) -> None:
        """Count a record, which has its partition and offset."""
        number, offset = record.partition, record.offset
        assert number is not None
        assert offset is not None
        self.positions[number] = offset + 1
        self.latest[number] = max(self.latest[number], record.timestamp)
        self.records += 1


def standing(path: Path) -> Standing:
    """How far the recording at `path` has come. Raises UserError where it is none of a topic on a broker."""
    header, records = read(path)
    if header.topic_id is None or len(header.beginnings) != header.partitions:
        raise UserError(
            f"{path} holds something else than a topic as `insession record` records it, and so can't be "
            "gone on with; give another --out"
        )
    so_far = Standing(header)
    for record in records:
        if record.partition is None or record.offset is None:
            raise UserError(f"{path} has records without partition and offset; give another --out")
        so_far.add(record)
    return so_far


class Recorder:
    """Begins the recording at `path`, or goes on with the one that is there. To be used in a `with`.

    Records go to `PATH.part`, frame by frame, after a copy of what stands at `path`. It replaces `path` when
    the `with` ends, by an exception too. A process that is killed leaves it behind, and the next recorder goes
    on from its last whole frame; so at `path` there is at all times nothing or a whole recording. Raises
    UserError where what is there is of another topic than `header` says, another process records to it, or the
    disk is full.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.part = lines.part_of(path)
        try:
            self._file = self.part.open("ab", buffering=0)
        except OSError as error:
            raise UserError(f"{self.part}: {error.strerror or error}") from None
        try:
            self._lock()
            self.standing = self._begin(header)
        except BaseException:
            self._file.close()
            raise
        self.before = self.standing.records
        """How many records there were."""
        self._lines: list[bytes] = []
        self._bytes = 0
        if not os.fstat(self._file.fileno()).st_size:
            self._lines.append(msgspec.json.encode(header))
        self._frame = (
            None if lines.is_plain(path) else zstandard.ZstdCompressor(level=lines.LEVEL, write_checksum=True)
        )

    def _lock(self) -> None:
        """One process at a time: the other's records would be lost when this one's file replaces its own."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = self.part.exists() and os.path.samestat(os.fstat(self._file.fileno()), self.part.stat())
        except OSError:
            alone = False
        if not alone:
            raise UserError(f"another process records to {self.path}; wait for it, or give another --out")

    def _begin(self, header: Header) -> Standing:
        self._file.truncate(lines.whole(self.part, plain=lines.is_plain(self.path)))
        part = standing(self.part) if os.fstat(self._file.fileno()).st_size else None
        done = standing(self.path) if self.path.exists() else None
        for name, found in ((self.part, part), (self.path, done)):
            if found is not None:
                _same(name, found.header, header)
        # A part that is behind is one that was being copied when its process was killed.
        behind = done is not None and (
            part is None or any(a < b for a, b in zip(part.positions, done.positions, strict=True))
        )
        if behind:
            self._file.truncate(0)
            with self.path.open("rb") as source:
                while data := source.read(FRAME_BYTES):
                    self._append(data)
            part = done
        return part or Standing(header)

    def write(self, record: Record) -> None:
        """Append a record, which has its partition and offset."""
        line = encode(record)
        self._lines.append(line)
        self._bytes += len(line)
        self.standing.add(record)
        if self._bytes >= FRAME_BYTES:
            self.flush()

    def flush(self) -> None:
        """Put what was written into a frame of the file, so that it outlives the process."""
        if not self._lines:
            return
        data = b"\n".join(self._lines) + b"\n"
        self._lines.clear()
        self._bytes = 0
        self._append(data if self._frame is None else self._frame.compress(data))

    def _append(self, data: bytes) -> None:
        rest, size = memoryview(data), os.fstat(self._file.fileno()).st_size
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except BaseException as error:
            # Whatever it was, a second Ctrl-C too: half a frame must never come to stand at the path.
            self._file.truncate(size)
            if isinstance(error, OSError):
                raise UserError(f"{self.part}: {error.strerror or error}") from None
            raise

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            self.flush()
            os.fsync(self._file.fileno())
            self.part.replace(self.path)


def _same(path: Path, found: Header, header: Header) -> None:
    """Refuse to go on with the recording of another topic."""
    if (found.cluster_id, found.topic_id) != (header.cluster_id, header.topic_id):
        raise UserError(
            f"{path} is a recording of another topic: of {found.topic} with id {found.topic_id} on cluster "
            f"{found.cluster_id}, and this is {header.topic} with id {header.topic_id} on cluster "
            f"{header.cluster_id}; give another --out"
        )
    if found.partitions != header.partitions:
        raise UserError(
            f"{path} was recorded from {found.partitions} partitions and {header.topic} has "
            f"{header.partitions} now; give another --out"
        )
