"""A store whose files are spoilt, on real files: nothing is passed over, and nothing but a store is deleted."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from models.store import Damaged, Store, StoreError, destroy, opened

USERS = 3_000
Damage = Callable[[Path], None]


def key(number: int) -> bytes:
    return b"u%05d" % number


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a store with users."""
    with closing(Store(tmp_path / "store")) as store:
        store.write({key(number): os.urandom(200) for number in range(USERS)})
    return tmp_path / "store"


def in_the_middle(folder: Path) -> None:
    """Damage the values of some users."""
    table = max(folder.glob("*.sst"), key=lambda file: file.stat().st_size)
    with table.open("r+b") as file:
        file.seek(table.stat().st_size // 2)
        file.write(b"\xff" * 50)


def overwritten(pattern: str) -> Damage:
    def damage(folder: Path) -> None:
        for file in folder.glob(pattern):
            file.write_bytes(b"garbage" * 100)

    return damage


def deleted(pattern: str) -> Damage:
    def damage(folder: Path) -> None:
        for file in folder.glob(pattern):
            file.unlink()

    return damage


@contextmanager
def full(bytes_: int = 1 << 17) -> Iterator[None]:
    """No file grows beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "damage",
    [
        overwritten("MANIFEST*"),
        overwritten("*.sst"),
        overwritten("CURRENT"),
        deleted("MANIFEST*"),
        deleted("*.sst"),
        deleted("CURRENT"),
    ],
)
def test_one_that_cant_be_opened_is_begun_anew_with_a_line(
    folder: Path, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    damage(folder)
    with closing(opened(folder)) as store:
        assert list(store.items(b"", b"\xff")) == []
        store.write({b"a": b"1"})
    [said] = caplog.messages
    assert said.startswith(f"the store {folder} is damaged: ")
    assert "\n" not in said
    with closing(Store(folder)) as store:
        assert store.get(b"a") == b"1"


def test_what_is_damaged_within_is_an_error_and_not_an_end(folder: Path) -> None:
    in_the_middle(folder)
    with closing(Store(folder)) as store:
        assert store.get(key(0))
        assert not store.damage
        with pytest.raises(Damaged):
            list(store.items(b"u", b"v"))
        with pytest.raises(Damaged):
            store.count(b"u", b"v")
        with pytest.raises(Damaged):
            store.get_many([key(number) for number in range(USERS)])
        assert "checksum" in store.damage
        assert store.get(key(0))  # the others are still to be read
        store.begin_anew()
        assert not store.damage
        assert list(store.items(b"", b"\xff")) == []


def test_one_that_could_not_be_written_goes_on_once_there_is_room(folder: Path) -> None:
    with closing(Store(folder)) as store:
        store.write({b"a": b"1"})
        more = {b"z%05d" % number: os.urandom(200) for number in range(USERS)}
        with full():
            with pytest.raises(StoreError, match="File too large"):
                store.write(more)
            with pytest.raises(StoreError, match="File too large"):
                store.reopen()
            assert store.get(b"a") == b"1"
            assert store.get(key(0))
        store.reopen()
        assert store.get(b"a") == b"1"
        assert store.get(b"z00000") is None
        store.write(more)
        assert store.get(b"z00000")


def test_one_whose_folder_is_gone_is_closed_and_made_again(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Store(folder)) as store:
        store.write({b"a": b"1"})
        deleted("*")(folder)
        folder.rmdir()
        store.reopen()
        assert store.get(b"a") is None
        store.write({b"a": b"2"})
        deleted("*")(folder)
        folder.rmdir()
    assert all("\n" not in said for said in caplog.messages)


@pytest.mark.parametrize("name", ["notes.txt", "000009.sst.bak", "folder"])
def test_a_folder_with_anything_else_in_it_is_never_deleted(folder: Path, name: str) -> None:
    (folder / name).mkdir() if name == "folder" else (folder / name).write_text("mine")
    before = sorted(folder.iterdir())
    with pytest.raises(StoreError, match=name):
        destroy(folder)
    assert sorted(folder.iterdir()) == before
    overwritten("CURRENT")(folder)
    with pytest.raises(StoreError, match=name):
        opened(folder)
    kept = {file.name for file in folder.iterdir()}
    assert {file.name for file in before if not file.name.startswith("LOG")} <= kept


def test_a_store_of_another_program_is_never_deleted(folder: Path) -> None:
    (folder / "rocksdict-config.json").unlink()
    before = sorted(folder.iterdir())
    with pytest.raises(StoreError, match="lacks"):
        destroy(folder)
    assert sorted(folder.iterdir()) == before


def test_a_store_behind_a_link_is_deleted_and_the_link_stays(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    destroy(link)
    assert link.is_symlink()
    assert not folder.exists() or list(folder.iterdir()) == []
    destroy(tmp_path / "nothing")
