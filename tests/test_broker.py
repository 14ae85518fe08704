"""Brokers that can't be started, and workers that can't have their state folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import UserError
from streams import broker, worker


def test_a_home_that_nothing_can_be_unpacked_into_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "home").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(UserError, match="can't be unpacked into the home directory"):
        broker.embedded().__enter__()


def test_a_workers_state_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/worker can't be written: Not a directory; give a folder"):
        worker._lock(tmp_path / "file" / "worker")
