"""Installed as for production, without torch and pyarrow, beside a user's own package named `models`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from insession.main import VERBS
from models import bundle
from streams.broker import Broker, free_port
from tests.made import a_bundle

ROOT = Path(__file__).parent.parent
PREFIX = "without-torch-"

RUN = """
import sys, urllib.request
from pathlib import Path
from insession.processes import insession
from insession.sidecar import Sidecar

here = Path(sys.argv[1])
common = sys.argv[2:]
with insession("worker", *common, ready="worker ready", log=here / "worker.log") as worker:
    print(worker.line)
    with insession("serve", *common, "--port", "0", ready="serving on ", log=here / "serve.log") as serve:
        print(serve.line)
        url = serve.line.removeprefix("serving on ")
        Sidecar(url).wait_until_ready()
        print(urllib.request.urlopen(url + "/readyz").status)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the project itself, not in editable mode, and without its extras."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    source.mkdir()
    for room in ("insession", "models", "streams", "serving"):
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "setup.py", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    pip = [
        str(folder / "env" / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
    ]
    done = subprocess.run(
        [*pip, "-c", "constraints.txt", "."],
        cwd=source,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "env" / "bin"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder of the user's, with a package of a name that is ours too."""
    for room in ("models", "streams"):
        (tmp_path / "mine" / room).mkdir(parents=True)
        (tmp_path / "mine" / room / "__init__.py").write_text("raise RuntimeError('the wrong package')\n")
    return tmp_path / "mine"


def environment() -> dict[str, str]:
    """Ours, but for what would show the interpreter the way to other packages or settings."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "INSESSION_")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)}


def run(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_torch_and_pyarrow_are_not_there(installed: Path, elsewhere: Path) -> None:
    for name in ("torch", "pyarrow"):
        imported = run(elsewhere, installed / "python", "-P", "-c", f"import {name}")
        assert f"No module named '{name}'" in imported.stderr


def test_every_verb_has_its_help_and_what_needs_more_says_so(installed: Path, elsewhere: Path) -> None:
    for verb in ("", *VERBS):
        helped = run(elsewhere, installed / "insession", *verb.split(), "--help")
        assert helped.returncode == 0, helped.stderr
        assert "Usage: insession" in helped.stdout
    trained = run(elsewhere, installed / "insession", "train", "none.jsonl", "--out", "bundles")
    assert trained.returncode == 2
    assert "insession[train]" in trained.stderr
    assert len(trained.stderr.strip().splitlines()) == 1


def test_worker_and_sidecar_come_up_and_the_doctor_is_content(
    installed: Path, elsewhere: Path, embedded: Broker
) -> None:
    bundle.write(elsewhere / "bundles", a_bundle())
    common = ("--bootstrap", embedded.bootstrap, "--topic-prefix", PREFIX)
    made = run(elsewhere, installed / "insession", "topics", *common, "--partitions", 2)
    assert made.returncode == 0, made.stdout + made.stderr

    here = ("--bundle", "bundles", "--state", "state")
    looked = run(
        elsewhere, installed / "insession", "doctor", *common, *here, "--port", free_port(), "--json"
    )
    assert looked.returncode == 0, looked.stdout + looked.stderr
    found = {finding["what"]: finding for finding in json.loads(looked.stdout)}
    assert found["torch"]["found"].startswith("not installed")
    assert all(finding["ok"] for finding in found.values())

    script = elsewhere.parent / "run.py"
    script.write_text(RUN)
    ran = run(elsewhere, installed / "python", "-P", script, elsewhere.parent, *common, *here)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    worker, serve, status = ran.stdout.strip().splitlines()
    assert worker.startswith("worker ready: partitions 0,1")
    assert serve.startswith("serving on http://127.0.0.1:")
    assert status == "200"
