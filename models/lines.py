"""Lines in a file, Zstandard compressed (`.jsonl.zst`) or plain (`.jsonl`): read with their numbers, and written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

import zstandard

from models.errors import UserError

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
READ_BYTES = 1 << 16
"""Compressed bytes taken at a time; they become some megabytes of lines at the most."""
WRITE_BYTES = 1 << 18
"""Bytes of lines gathered before they are compressed."""
LEVEL = 3


def read(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers from 1, without the line feed.

    Raises UserError, naming file and line, where the file can't be read, is damaged or ends too early.
    """
    number, rest = 0, b""
    try:
        with path.open("rb") as file:
            for chunk in _chunks(file):
                first, *others = (rest + chunk if rest else chunk).split(b"\n")
                if not others:
                    rest = first
                    continue
                number += 1
                yield number, first
                rest = others.pop()
                for line in others:
                    number += 1
                    yield number, line
            if rest:
                yield number + 1, rest
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except EOFError:
        raise UserError(f"{path}:{number + 1}: truncated: the file ends in the middle of its data") from None
    except zstandard.ZstdError as error:
        raise UserError(f"{path}:{number + 1}: damaged: {error}") from None


def count(path: Path) -> int:
    """How many lines there are; so the file has been seen to be whole. Raises UserError as `read` does."""
    return sum(1 for _ in read(path))


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    """The file's bytes, decompressed where it is compressed. Raises EOFError where a frame is not complete."""
    data = file.read(READ_BYTES)
    if not data.startswith(ZSTD_MAGIC):
        while data:
            yield data
            data = file.read(READ_BYTES)
        return
    frame = zstandard.ZstdDecompressor().decompressobj()
    while data:
        yield frame.decompress(data)
        if frame.eof:
            data = frame.unused_data or file.read(READ_BYTES)
            if not data:
                return
            frame = zstandard.ZstdDecompressor().decompressobj()
        else:
            data = file.read(READ_BYTES)
    raise EOFError


def whole(path: Path, *, plain: bool) -> int:
    """How many bytes of the file are whole: up to its last line feed, or the last frame that is complete and undamaged."""
    end = at = 0
    frame = zstandard.ZstdDecompressor().decompressobj()
    with path.open("rb") as file:
        data = file.read(READ_BYTES)
        while data:
            if plain:
                end = at + data.rfind(b"\n") + 1 if b"\n" in data else end
                at, data = at + len(data), file.read(READ_BYTES)
                continue
            try:
                frame.decompress(data)
            except zstandard.ZstdError:
                break  # What is behind a damaged frame can't be trusted either.
            at += len(data)
            rest = b""
            if frame.eof:
                rest = frame.unused_data
                end = at = at - len(rest)
                frame = zstandard.ZstdDecompressor().decompressobj()
            data = rest or file.read(READ_BYTES)
    return end


def part_of(path: Path) -> Path:
    """Where a file is written before it stands at `path`."""
    if path.is_dir():
        raise UserError(f"{path}: a folder; this is to be a file")
    return path.with_name(path.name + ".part")


def is_plain(path: Path) -> bool:
    """Whether a file of this name is not compressed."""
    return path.suffix == ".jsonl"


class Writer:
    """Writes a file of lines: compressed, unless the name ends with `.jsonl`. To be used in a `with`.

    What is written goes to `PATH.part`, which replaces `path` when the `with` ends and is removed when it ends
    by an exception: at `path` stands what was there before or a whole file, never a part of one. The same
    lines give the same bytes. Raises UserError where the file can't be made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.part = part_of(self.path)
        try:
            self.file: IO[bytes] = self.part.open("wb")
        except OSError as error:
            raise UserError(f"{self.part}: {error.strerror or error}") from None
        self.frame = (
            None
            if is_plain(self.path)
            else zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()
        )
        self.lines: list[bytes] = []
        self.size = 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self.file:
                if kind is None:
                    self._flush()
                    if self.frame is not None:
                        self.file.write(self.frame.flush())
            if kind is None:
                self.part.replace(self.path)
        finally:
            self.part.unlink(missing_ok=True)

    def write(self, line: bytes) -> None:
        """Append a line. Raises OSError where the disk is full."""
        self.lines.append(line)
        self.size += len(line)
        if self.size >= WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        data = b"\n".join(self.lines) + b"\n" if self.lines else b""
        self.file.write(data if self.frame is None else self.frame.compress(data))
        self.lines.clear()
        self.size = 0
