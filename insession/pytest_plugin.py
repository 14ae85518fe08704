"""A pytest fixture that checks a recording against its expected result with the `insession` command.

pytest finds it where insession is installed. The command runs as a process of its own, and this module imports
nothing of ours, so that packages of the same names in the tested repository can't get in the way of either.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-P", "-m", "insession.main")
"""-P: what is in the current folder is not imported."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The flag that writes expected results anew."""
    parser.getgroup("insession").addoption(
        "--insession-update",
        action="store_true",
        help="write the expected results of insession_verify anew instead of comparing with them",
    )


@pytest.fixture
def insession_verify(request: pytest.FixtureRequest) -> Callable[..., str]:
    """Call it with a recording, the bundle, the file of the expected result and, where listings were announced, a recording of those; relative paths begin at the test's folder.

    It fails the test with what the command printed, the first difference, where the results differ; and gives
    what it printed. With `pytest --insession-update` the file is written anew.
    """
    folder = request.path.parent
    update = bool(request.config.getoption("--insession-update"))

    def verify(
        recording: str | os.PathLike[str],
        *,
        bundle: str | os.PathLike[str],
        expected: str | os.PathLike[str],
        listings: str | os.PathLike[str] | None = None,
    ) -> str:
        command = [*COMMAND, "verify", str(folder / Path(recording)), "--bundle", str(folder / Path(bundle))]
        command += ["--expected", str(folder / Path(expected)), *(["--update"] if update else [])]
        command += ["--listings", str(folder / Path(listings))] if listings is not None else []
        # The same for a PYTHONPATH that names the repository.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", check=False, env=environment
        )
        if done.returncode != 0:
            hint = "to take the new result as the expected one, run pytest with --insession-update"
            updatable = done.returncode == 1 or not (folder / Path(expected)).exists()
            pytest.fail(f"{done.stdout}{done.stderr}{hint if updatable else ''}", pytrace=False)
        return done.stdout

    return verify
