"""How commands end that are told to."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from insession.processes import COMMAND


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("arguments", "begun"),
    [
        (["import", "marketplace", "--visits", "1000000", "--out", "big.jsonl.zst"], "*.part"),
        (["topics", "--bootstrap", "127.0.0.1:1"], ""),
    ],
    ids=["import", "topics"],
)
def test_what_is_interrupted_says_so_in_a_line_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], begun: str, number: signal.Signals
) -> None:
    # As a terminal has it: a shell in the background would have told it to ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
    finally:
        signal.signal(signal.SIGINT, before)
    if begun:
        while not list(tmp_path.glob(begun)):
            assert process.poll() is None
            time.sleep(0.05)
    else:
        time.sleep(1.5)
    process.send_signal(number)
    output, errors = process.communicate(timeout=5)
    assert (process.returncode, output) == (130, "")
    assert errors.strip() == "insession: interrupted"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--version"], 0, "insession, version"),
        (["train", "--help"], 0, "Usage: insession train"),
        (["nothing"], 2, "No such command 'nothing'"),
        (["train"], 2, "Missing argument"),
        (["evaluate", "rerank", "x", "--bundle", "absent"], 2, "insession: no bundle: absent does not exist"),
    ],
)
def test_exit_codes_are_clicks_own(arguments: list[str], code: int, says: str) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == code
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
