"""The rule that CI does not skip what needs Kafka or recorded data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SKIPPING = """
import pytest

@pytest.fixture
def absent():
    pytest.skip("not here")

@pytest.mark.{marker}
def test_by_its_fixture(absent):
    pass

@pytest.mark.{marker}
def test_by_itself():
    pytest.skip("not here")

def test_of_no_concern():
    pass
"""


@pytest.mark.parametrize("marker", ["kafka", "data"])
def test_a_skip_for_want_of_kafka_or_data_is_a_failure_in_ci_alone(tmp_path: Path, marker: str) -> None:
    (tmp_path / "conftest.py").write_bytes(Path(__file__).with_name("conftest.py").read_bytes())
    (tmp_path / "test_skipping.py").write_text(SKIPPING.format(marker=marker))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    kafka\n    data\n    other\n")
    assert _run(tmp_path, ci="") == "1 passed, 2 skipped"
    assert _run(tmp_path, ci="true") == "1 failed, 1 passed, 1 error"


def test_other_skips_stay_skips_in_ci(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_bytes(Path(__file__).with_name("conftest.py").read_bytes())
    (tmp_path / "test_skipping.py").write_text(SKIPPING.format(marker="other"))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    other\n")
    assert _run(tmp_path, ci="true") == "1 passed, 2 skipped"


def _run(folder: Path, *, ci: str) -> str:
    """The counts in pytest's last line."""
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-c",
            str(folder / "pytest.ini"),
            str(folder),
        ],
        cwd=folder,
        env={**os.environ, "CI": ci, "PYTHONPATH": f"{ROOT}:{ROOT / 'serving' / 'client'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout.strip().splitlines()[-1].split(" in ")[0]
