"""The rooms as processes: started, waited for, and ended in the reverse order."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from models.errors import UserError
from streams.broker import end

READY_SECONDS = 90.0
COMMAND = (sys.executable, "-P", "-m", "insession.main")
"""The command in this environment. -P: a `models` package in the current folder is the user's, not ours."""


@dataclass(frozen=True, slots=True)
class Process:
    """An `insession` command that runs and has said that it is ready."""

    name: str
    line: str
    """What it said."""
    popen: subprocess.Popen[bytes]
    log: Path


@contextmanager
def insession(*arguments: str, ready: str, log: Path) -> Iterator[Process]:
    """Run `insession ARGUMENTS` until the end of the `with`, from when it prints a line that begins with `ready`.

    It runs in a session of its own, so that Ctrl-C reaches it only through us. UserError where it ends before,
    with the last it wrote to its log.
    """
    name = arguments[0]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as errors:
        popen = subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    try:
        yield Process(name, _wait(popen, name, ready, log), popen, log)
    finally:
        end(popen)
        if popen.stdout is not None:
            popen.stdout.close()


def _wait(popen: subprocess.Popen[bytes], name: str, ready: str, log: Path) -> str:
    lines: queue.Queue[str | None] = queue.Queue()

    def pump() -> None:
        assert popen.stdout is not None
        for line in popen.stdout:
            lines.put(line.decode(errors="replace").rstrip("\n"))
        lines.put(None)

    # Reads on after the line is found: a full pipe would stop the process.
    threading.Thread(target=pump, daemon=True).start()
    deadline = time.monotonic() + READY_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        try:
            line = lines.get(timeout=left)
        except queue.Empty:
            break
        if line is None:
            tail = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise UserError(f"the {name} ended with code {popen.wait()}: {' / '.join(tail)}")
        if line.startswith(ready):
            return line
    raise UserError(f"the {name} was not ready within {READY_SECONDS:.0f} s; its log is {log}")
