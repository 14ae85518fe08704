"""Bytes by key on disk (rocksdict, raw mode), with writes that happen whole or not at all.

Worker and sidecar keep the users' states in one, beside the positions those states stand for: what is written
together is found together after any crash of the process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import cast

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DbClosedError,
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

ROOM_BYTES = 1 << 20
"""What a store that is opened again must be able to write, besides what waits in it."""

_blocks = Cache(BLOCKS_BYTES)

_DAMAGE = re.compile(r"Corruption|No such file or directory")
"""What the library says where files of a store are not as it left them, or not there."""
_MARK = "rocksdict-config.json"
_FILES = re.compile(
    r"\d+\.(sst|log|blob|dbtmp)|CURRENT|IDENTITY|LOCK|LOG(\.old\.\d+)?|(MANIFEST|OPTIONS)-\d+(\.dbtmp)?|"
    + re.escape(_MARK)
)

log = logging.getLogger("insession.store")


class StoreError(UserError):
    """A store can't be opened, read or written. The message says which and why."""


class Damaged(StoreError):
    """Of what was in the store a part is lost."""


class Store:
    """A folder of keys and values. Raises StoreError where it can't be opened, as when another process has it, and
    Damaged where it is damaged. So may every method but `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ""
        """What has been found damaged, by whichever thread; empty where nothing has."""
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
        self._options = options
        self._logged, self._not_logged = WriteOptions(), WriteOptions()
        self._not_logged.disable_wal = True  # type: ignore[method-assign,assignment]
        self._open()

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = Rdict(str(self.path), options=self._options)
        except OSError as error:
            raise StoreError(
                f"{self.path.parent} can't be written: {error.strerror}; give a folder with --state"
            ) from None
        except Exception as error:
            if "/LOCK: " in str(error):
                raise StoreError(
                    f"another process keeps its states in {self.path}; give this one a folder of its own with --state"
                ) from None
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> StoreError:
        """What to raise where the library has raised this."""
        says = " ".join(str(error).split())
        if not _DAMAGE.search(says):
            return StoreError(f"the store {self.path} can't be used: {says}")
        self.damage = f"the store {self.path} is damaged: {says}"
        return Damaged(self.damage)

    def reopen(self) -> None:
        """Open it again: after a write that failed the library takes no other. What was not logged is lost.

        Raises StoreError while the disk has no room for what waits to be written. It can be read all the time.
        """
        before = self._db
        try:
            waiting = sum(file.stat().st_size for file in self.path.glob("*.log"))
            with tempfile.TemporaryFile(dir=self.path) as probe:
                os.posix_fallocate(probe.fileno(), 0, waiting + ROOM_BYTES)
        except FileNotFoundError:
            pass  # somebody has deleted the folder: it is made again
        except OSError as error:
            raise StoreError(f"the store {self.path} can't be written: {error.strerror}") from None
        else:
            # To be read meanwhile: after a write that failed, closing takes a second.
            reading = AccessType.read_only(False)
            with contextlib.suppress(Exception):
                self._db = Rdict(str(self.path), options=self._options, access_type=reading)
        self._close(before)
        self._open()

    def begin_anew(self) -> None:
        """Throw away all that is in it. Raises StoreError, also where something else is in the folder."""
        self.close()
        destroy(self.path)
        self.damage = ""
        self._open()

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        try:
            return cast("bytes | None", self._db.get(key))
        except Exception as error:
            raise self._failed(error) from None

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The values of `keys`, in their order, in one read."""
        try:
            return cast("list[bytes | None]", self._db.get(list(keys))) if keys else []
        except Exception as error:
            raise self._failed(error) from None

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
        try:
            self._db.write(batch, self._logged if logged else self._not_logged)
        except Exception as error:
            raise self._failed(error) from None

    def flush(self) -> None:
        """Bring what was not logged to the disk."""
        try:
            self._db.flush()
        except Exception as error:
            raise self._failed(error) from None

    def items(self, begin: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The keys from `begin` up to but without `end`, in order, with their values, as they stand now."""
        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        try:
            # The library's own iterators end at what is damaged as if nothing came after it; this one can be asked.
            at = self._db.iter(read_opt=options)
            at.seek(begin)
            while at.valid():
                yield at.key(), at.value()
                at.next()
            at.status()
        except Exception as error:
            raise self._failed(error) from None

    def slices(self, prefix: bytes, many: int) -> Iterator[list[tuple[bytes, bytes]]]:
        """All keys that begin with `prefix` and their values, so many at a time, each as it stands then."""
        after = prefix
        while some := list(islice(self.items(after, following(prefix)), many)):
            yield some
            after = some[-1][0] + b"\0"

    def count(self, begin: bytes, end: bytes) -> int:
        """How many keys there are from `begin` up to but without `end`."""
        return sum(1 for _ in self.items(begin, end))

    def drop(self, begin: bytes, end: bytes) -> None:
        """Delete the keys from `begin` up to but without `end`."""
        try:
            self._db.delete_range(begin, end)
        except Exception as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """Give the folder back, whatever has become of it. Iterators over it must have ended."""
        self._close(self._db)

    def _close(self, db: Rdict) -> None:
        try:
            with contextlib.suppress(DbClosedError):
                db.close()
        except Exception as error:
            log.warning("closing the store %s: %s", self.path, " ".join(str(error).split()))


def opened(path: Path) -> Store:
    """The store in a folder, begun anew where it is damaged: for whoever can fill it again. Raises StoreError."""
    try:
        return Store(path)
    except Damaged as error:
        damage = str(error)
    destroy(path)
    log.warning("%s; it is begun anew", damage)
    return Store(path)


def destroy(path: Path) -> None:
    """Delete a store that no process has open, if there is one. Raises StoreError where the folder is not a store's alone."""
    try:
        files = list(path.iterdir())
        names = {file.name for file in files}
        if others := sorted(name for name in names if not _FILES.fullmatch(name)):
            raise StoreError(f"{path} is not deleted, as {others[0]} in it is not a store's")
        if names and _MARK not in names:
            raise StoreError(f"{path} is not deleted, as it lacks {_MARK}, which every store of ours has")
        # The mark last: whoever is killed meanwhile leaves what can be deleted still.
        for file in sorted(files, key=lambda file: file.name == _MARK):
            file.unlink()
        with contextlib.suppress(OSError):  # it may be where a disk is mounted
            path.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StoreError(f"{path} can't be deleted: {error}") from None


def following(prefix: bytes) -> bytes:
    """The end of the range of keys that begin with `prefix`."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
