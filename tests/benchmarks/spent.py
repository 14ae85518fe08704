"""Where a sidecar's time goes under load: py-spy's samples of who holds the interpreter, by line, and as a flame graph."""

from __future__ import annotations

import linecache
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

SECONDS, RATE, LINES = 4, 500, 22
ROOT = Path(__file__).parent.parent.parent
FRAME = re.compile(r"(?P<name>.+) \((?P<file>.+):(?P<line>\d+)\)")


def table(pid: int, flames: Path) -> str:
    """The lines in which most of the time is spent, each time in the innermost one that is ours where there is one.

    Writes a flame graph to `flames`. Says why where py-spy can't look at the process; it needs that process under load
    for twice SECONDS.
    """
    spy = Path(sys.executable).with_name("py-spy")
    if not spy.exists():
        return "where the time goes: not looked at, as py-spy is not installed (pip install py-spy)"
    raw = flames.with_suffix(".txt")
    command = [str(spy), "record", "--pid", str(pid), "--duration", str(SECONDS), "--rate", str(RATE)]
    for format_, path in (("flamegraph", flames), ("raw", raw)):
        ran = subprocess.run(
            [*command, "--gil", "--full-filenames", "--format", format_, "--output", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            return f"where the time goes: not looked at: {ran.stderr.strip().splitlines()[-1]}"
    spent: Counter[str] = Counter()
    for sample in raw.read_text().splitlines():
        stack, _, count = sample.rpartition(" ")
        spent[_where(stack.split(";"))] += int(count)
    raw.unlink()
    whole = spent.total() or 1
    lines = [f"{count / whole:6.1%}  {where}" for where, count in spent.most_common(LINES)]
    return "\n".join([f"where the time goes at 200 candidates; {flames} shows it as flames", *lines])


def _where(stack: list[str]) -> str:
    frames = [found for frame in reversed(stack) if (found := FRAME.fullmatch(frame))]
    ours = (f for f in frames if f["file"].startswith(f"{ROOT}/") and "site-packages" not in f["file"])
    own = next(ours, None)
    if own is None or own["file"].endswith("serving/server.py"):
        package = re.search(r"site-packages/(\w+)", frames[0]["file"] if frames else "")
        return f"HTTP: {package[1] if package else 'asyncio, uvloop'}"
    path = Path(own["file"]).relative_to(ROOT)
    source = linecache.getline(own["file"], int(own["line"])).strip()
    return f"{path}:{own['line']:<4} {source[:90]}"
