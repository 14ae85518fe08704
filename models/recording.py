"""A stream in a file: a first line with the format's version and the topic's facts, then one JSON line a record.

    {"format":"insession-recording","version":1,"topic":"clicks","partitions":4,"source":"trivago"}
    {"partition":1,"timestamp":1541030578000,"key":"A209","headers":[["session","d63"]],"value":"{...}"}

A recording holds whatever a topic can. Keys, values and headers that are UTF-8 stand as text, others as
`key_base64`, `value_base64` and `[name, {"base64": ...}]`; null is JSON's null. Zstandard compressed
(`.jsonl.zst`), or plain (`.jsonl`) to be written and read by hand.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal

import msgspec

from models import lines
from models.errors import UserError

VERSION = 1
SESSION = "session"
"""The header in which an imported record carries the session its source counts it to, where the source says so."""

Format = Literal["insession-recording"]
Count = Annotated[int, msgspec.Meta(ge=1)]
Number = Annotated[int, msgspec.Meta(ge=0)]


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: which topic this is or is meant for, and how it is partitioned."""

    format: Format = "insession-recording"
    version: int = VERSION
    topic: str
    partitions: Count
    source: str | None = None
    """Where the records come from: a broker's topic, or the format they were imported from."""
    cluster_id: str | None = None
    topic_id: str | None = None
    beginnings: tuple[Number, ...] = ()
    """The offset at which the recording of each partition begins, where it was recorded."""
    settings: dict[str, str] = {}
    """The topic's settings on its broker, where they are known."""


@dataclass(slots=True)
class Record:
    """A record of a topic. `timestamp` in milliseconds; partition and offset are None where not known."""

    partition: int | None
    offset: int | None
    timestamp: int
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    value: bytes | None


class _Base64(msgspec.Struct, frozen=True):
    base64: bytes


class Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A record as it stands in the file; of `key` and `key_base64`, `value` and `value_base64` one is given."""

    partition: Number | None = None
    offset: Number | None = None
    timestamp: int
    key: str | msgspec.UnsetType | None = msgspec.UNSET
    key_base64: bytes | msgspec.UnsetType = msgspec.UNSET
    headers: tuple[tuple[str, str | _Base64 | None], ...] = ()
    value: str | msgspec.UnsetType | None = msgspec.UNSET
    value_base64: bytes | msgspec.UnsetType = msgspec.UNSET


class _Version(msgspec.Struct):
    format: Format
    version: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


def read(path: str | os.PathLike[str]) -> tuple[Header, Iterator[Record]]:
    """The header of the recording at `path`, and its records one by one as they are taken.

    Raises UserError, naming file and line, where the file can't be read, is not a recording, is of a later
    version, is damaged or ends too early; for the records while they are taken.
    """
    rest = lines.read(Path(path))
    _, line = next(rest, (1, b""))
    try:
        version = msgspec.json.decode(line, type=_Version).version
        if version != VERSION:
            raise UserError(f"{path}:1: a recording of version {version}; this program reads {VERSION}")
        header = msgspec.json.decode(line, type=Header)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UserError(f"{path}:1: not the first line of a recording: {error}") from None
    return header, _records(path, header, rest)


def count(path: str | os.PathLike[str]) -> int:
    """How many records there are; so the file has been seen to be whole. Raises UserError as `read` does."""
    read(path)
    return lines.count(Path(path)) - 1


def _records(
    path: str | os.PathLike[str], header: Header, numbered: Iterator[tuple[int, bytes]]
) -> Iterator[Record]:
    unset, partitions = msgspec.UNSET, header.partitions
    for number, text in numbered:
        try:
            line = _decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not a record: {error}") from None
        key, value = line.key, line.value
        if (key is unset) is (line.key_base64 is unset):
            raise UserError(f"{path}:{number}: not a record: one of `key` and `key_base64` must be given")
        if (value is unset) is (line.value_base64 is unset):
            raise UserError(f"{path}:{number}: not a record: one of `value` and `value_base64` must be given")
        if line.partition is not None and line.partition >= partitions:
            raise UserError(f"{path}:{number}: partition {line.partition}, but the topic has {partitions}")
        try:
            record = Record(
                line.partition,
                line.offset,
                line.timestamp,
                key.encode() if type(key) is str else _bytes(key, line.key_base64),
                tuple([(name, _header_bytes(value)) for name, value in line.headers]) if line.headers else (),
                value.encode() if type(value) is str else _bytes(value, line.value_base64),
            )
        except UnicodeEncodeError:
            raise UserError(f"{path}:{number}: not a record: a lone surrogate in its text") from None
        yield record


def _bytes(text: str | msgspec.UnsetType | None, data: bytes | msgspec.UnsetType) -> bytes | None:
    if isinstance(text, str):
        return text.encode()
    return None if text is None or data is msgspec.UNSET else data


def _header_bytes(value: str | _Base64 | None) -> bytes | None:
    if isinstance(value, str):
        return value.encode()
    return None if value is None else value.base64


class Writer:
    """Writes a recording: compressed, unless the name ends with `.jsonl`. To be used in a `with`.

    At `path` stands what was there before or, once the `with` has ended without an exception, the whole
    recording: see models.lines.Writer. The same records give the same bytes. Raises UserError where the file
    can't be made.
    """

    def __init__(self, path: str | os.PathLike[str], header: Header) -> None:
        self.lines = lines.Writer(path)
        self.lines.write(_encode(header))
        self.records = 0

    def __enter__(self) -> Writer:
        self.lines.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lines.__exit__(kind, error, trace)

    def write(self, record: Record) -> None:
        """Append a record. Raises OSError where the disk is full."""
        self.lines.write(encode(record))
        self.records += 1


def encode(record: Record) -> bytes:
    """The record's line."""
    line = Line(timestamp=record.timestamp, partition=record.partition, offset=record.offset)
    key, value = record.key, record.value
    try:
        line.key = None if key is None else key.decode()
    except UnicodeDecodeError:
        line.key_base64 = key or b""
    try:
        line.value = None if value is None else value.decode()
    except UnicodeDecodeError:
        line.value_base64 = value or b""
    if record.headers:
        try:  # Nearly all are text.
            line.headers = tuple([(name, data.decode()) for name, data in record.headers])  # type: ignore[union-attr]
        except (UnicodeDecodeError, AttributeError):
            line.headers = tuple([(name, _header_text(data)) for name, data in record.headers])
    return _encode(line)


def _header_text(value: bytes | None) -> str | _Base64 | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return _Base64(value or b"")


def home(record: Record, partitions: int) -> int:
    """The record's partition among so many: its own, else where Kafka's Java client puts its key, and 0 for a null key."""
    if record.partition is not None:
        return record.partition
    return partition_of(record.key, partitions) if record.key is not None else 0


@lru_cache(maxsize=1 << 16)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition where Kafka's Java client puts a record with this key.

    Its default partitioner: MurmurHash2, 32 bits, of the key (A. Appleby, 2008, with Kafka's seed), without
    the sign, modulo the number of partitions.
    """
    multiplier, mask = 0x5BD1E995, 0xFFFFFFFF
    hashed = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        hashed = hashed * multiplier & mask ^ word
    if whole < len(key):
        hashed = (hashed ^ int.from_bytes(key[whole:], "little")) * multiplier & mask
    hashed = (hashed ^ hashed >> 13) * multiplier & mask
    return (hashed ^ hashed >> 15) % (1 << 31) % partitions
