"""The fixture that we ship, in a team's repository which has packages of the same names as ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from models import bundle
from models.recording import Header, Writer
from tests.made import a_bundle
from tests.path import records

THEIRS = """
def test_yesterday_gives_what_it_gave(insession_verify):
    said = insession_verify("yesterday.jsonl.zst", bundle="bundles", expected="yesterday.expected.jsonl")
    assert "yesterday.expected.jsonl" in said


def test_their_models_are_theirs():
    import models

    assert models.THEIRS
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A team's repository: a package `models` of its own, that breaks in any process but its tests', a recording and a bundle."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text(
        "import sys\n\nassert 'pytest' in sys.modules\nTHEIRS = True\n"
    )
    (tmp_path / "conftest.py").write_text("import models\n\nassert models.THEIRS\n")
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_theirs.py").write_text(THEIRS)
    bundle.write(tests / "bundles", a_bundle(40))
    with Writer(tests / "yesterday.jsonl.zst", Header(topic="clicks", partitions=2)) as writer:
        for item in records(300):
            writer.write(item)
    return tmp_path


def theirs(repository: Path, *flags: str) -> tuple[int, str]:
    """Their test run, with the repository on the path in every way there is."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *flags]
    done = subprocess.run(
        command,
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_teams_test_updates_passes_and_fails_with_the_first_difference(repository: Path) -> None:
    kept = repository / "tests" / "yesterday.expected.jsonl"
    code, said = theirs(repository)
    assert code == 1
    assert "No such file" in said
    assert "--insession-update" in said
    code, said = theirs(repository, "--insession-update")
    assert code == 0, said
    before = kept.read_bytes()
    code, said = theirs(repository)
    assert code == 0, said
    assert "2 passed" in said
    kept.write_bytes(before.replace(b'"click"', b'"inquiry"', 1))
    code, said = theirs(repository)
    assert code == 1
    assert "differs" in said
    assert 'expected "inquiry"' in said
    assert 'found    "click"' in said
    assert "1 failed, 1 passed" in said
    assert "Traceback" not in said
    assert theirs(repository, "--insession-update")[0] == 0
    assert kept.read_bytes() == before


def test_the_plugin_imports_nothing_of_ours() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import insession.pytest_plugin; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names); "
        "assert new == {'insession'}, new; "
        "assert 'insession.settings' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
