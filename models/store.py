"""Bytes by key on disk (rocksdict, raw mode), with writes that happen whole or not at all.

Worker and sidecar keep the users' states in one, beside the positions those states stand for: what is written
together is found together after any crash of the process.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from models.errors import UserError

BLOCKS_BYTES = 64 << 20
"""What all stores of a process keep of what they read; what is written waits in at most 128 MB a store."""

_blocks = Cache(BLOCKS_BYTES)


class Store:
    """A folder of keys and values. Raises UserError where the folder can't be opened, as when another process has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_keep_log_file_num(2)
        tables = BlockBasedOptions()
        tables.set_block_cache(_blocks)
        tables.set_bloom_filter(10, False)
        options.set_block_based_table_factory(tables)
        options.set_write_buffer_size(64 << 20)
        options.set_max_write_buffer_number(2)
        # A store that is filled has three versions of everything go through it: with the library's own settings it is
        # rewritten so often that this takes most of the time. The filter makes up for it when it is read.
        options.set_compression_type(DBCompressionType.lz4())
        options.set_level_zero_file_num_compaction_trigger(12)
        options.set_max_bytes_for_level_base(1 << 30)
        self._logged, self._not_logged = WriteOptions(), WriteOptions()
        self._not_logged.disable_wal = True  # type: ignore[method-assign,assignment]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = Rdict(str(path), options=options)
        except OSError as error:
            raise UserError(
                f"{path.parent} can't be written: {error.strerror}; give a folder with --state"
            ) from None
        except Exception as error:
            if "/LOCK: " in str(error):
                raise UserError(
                    f"another process keeps its states in {path}; give this one a folder of its own with --state"
                ) from None
            raise UserError(f"the store {path} can't be opened: {error}") from None

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        return cast("bytes | None", self._db.get(key))

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The values of `keys`, in their order, in one read."""
        return cast("list[bytes | None]", self._db.get(list(keys))) if keys else []

    def write(self, changes: Mapping[bytes, bytes | None], *, logged: bool = True) -> None:
        """Put the values, delete the keys whose value is None: all of it at once, or nothing.

        What is not `logged` may be lost in a crash until `flush`, the last writes first.
        """
        batch = WriteBatch(raw_mode=True)
        for key, value in changes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        self._db.write(batch, self._logged if logged else self._not_logged)

    def flush(self) -> None:
        """Bring what was not logged to the disk."""
        self._db.flush()

    def items(self, begin: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The keys from `begin` up to but without `end`, in order, with their values, as they stand now."""
        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        return cast("Iterator[tuple[bytes, bytes]]", self._db.items(from_key=begin, read_opt=options))

    def count(self, begin: bytes, end: bytes) -> int:
        """How many keys there are from `begin` up to but without `end`."""
        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        return sum(1 for _ in self._db.keys(from_key=begin, read_opt=options))

    def drop(self, begin: bytes, end: bytes) -> None:
        """Delete the keys from `begin` up to but without `end`."""
        self._db.delete_range(begin, end)

    def close(self) -> None:
        """Give the folder back. Iterators over it must have ended."""
        self._db.close()


def destroy(path: Path) -> None:
    """Delete a store that no process has open."""
    shutil.rmtree(path, ignore_errors=True)


def following(prefix: bytes) -> bytes:
    """The end of the range of keys that begin with `prefix`."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
