"""The laws of the house: that they hold, and that they would be seen to be broken."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("insession", "models", "streams", "serving")

BREACHES = [
    ("streams/topics.py", "import serving.api", "know nothing of each other"),
    ("serving/api.py", "import streams.topics", "know nothing of each other"),
    ("models/events.py", "import streams.topics", "know nothing of each other"),
    ("serving/api.py", "import insession.settings", "nothing imports insession"),
    ("serving/api.py", "import models.training.skip_gram", "need nothing that trains"),
    ("models/rank.py", "import models.evaluation.rerank", "known to the front door alone"),
    ("models/partition.py", "import confluent_kafka", "Models know no Kafka"),
    ("models/rank.py", "import torch", "Torch"),
    ("models/bundle.py", "import pyarrow", "Parquet"),
    ("insession/worker.py", "import faust", "Faust"),
    ("insession/serve.py", "import uvicorn", "Starlette and uvicorn"),
    ("models/rank.py", "import hnswlib", "Hnswlib"),
    ("serving/states.py", "import rocksdict", "Rocksdict"),
]

CLOCKS = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "os": {"environ", "environb", "getenv"},
}


def lint(folder: Path) -> tuple[int, str]:
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from importlinter.cli import lint_imports_command as c; c()",
            "--no-cache",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, " ".join((ran.stdout + ran.stderr).split())


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rooms and their laws, to be broken."""
    folder = tmp_path_factory.mktemp("house")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_laws_hold(copy: Path) -> None:
    code, said = lint(copy)
    assert code == 0, said
    assert " 0 broken" in said


@pytest.mark.parametrize(("file", "line", "law"), BREACHES)
def test_a_breach_is_seen(copy: Path, file: str, line: str, law: str) -> None:
    whole = (copy / file).read_text()
    try:
        (copy / file).write_text(f"{whole}\n\ndef breach() -> None:\n    {line}\n")
        code, said = lint(copy)
    finally:
        (copy / file).write_text(whole)
    assert code == 1, said
    assert "BROKEN" in said
    broken = said.split("Broken contracts")[-1]
    assert law in broken


def clocks(source: str) -> list[str]:
    """Where a program reads a clock or the environment."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if node.attr in CLOCKS.get(owner, ()):
                found.append(f"{owner}.{node.attr} in line {node.lineno}")
        if isinstance(node, ast.ImportFrom):
            taken = {alias.name for alias in node.names} & CLOCKS.get(node.module or "", set())
            found += [f"{node.module}.{name} in line {node.lineno}" for name in sorted(taken)]
    return found


def test_models_read_no_clock_and_no_environment() -> None:
    found = {
        str(path.relative_to(ROOT)): clocks(path.read_text(encoding="utf-8"))
        for path in (ROOT / "models").rglob("*.py")
    }
    assert len(found) > 20
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.time_ns()",
        "from time import monotonic",
        "from datetime import datetime\ndatetime.now()",
        "import datetime\ndatetime.datetime.now()",
        "import os\nos.environ['HOME']",
        "from os import environ",
    ],
)
def test_a_clock_or_the_environment_is_seen(source: str) -> None:
    assert clocks(source)


def test_types_are_made_ready_for_threads_where_they_are_imported() -> None:
    """msgspec crashes where two threads are the first to decode a type: what runs in threads has its decoders from the start."""
    lazy = [
        f"{path.name}: {line.strip()}"
        for room in ("streams", "serving")
        for path in (ROOT / room).glob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "json.decode(" in line and "type=" in line
    ]
    assert lazy == []
