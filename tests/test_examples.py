"""Every example in a verb's help, pasted into an empty folder beside a broker that runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from streams.broker import Broker
from tests.test_docs import VERBS, example

READY = {
    "insession broker": "broker ready: ",
    "insession worker": "worker ready",
    "insession serve": "serving on ",
}
"""What those say that run until Ctrl-C."""
SECONDS = 60


ELSEWHERE = {"insession demo", "insession dead-letters show", "insession dead-letters put-back"}
"""What is tried by tests of its own: it takes long, or needs a letter that is dead."""


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - ELSEWHERE))
def test_the_example_works_when_pasted(verb: str, embedded: Broker, tmp_path: Path) -> None:
    process = subprocess.Popen(
        ["bash", "-e"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
        env=os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "INSESSION_BOOTSTRAP": embedded.bootstrap,
            "INSESSION_PORT": "0",
        },
    )
    overdue = threading.Timer(SECONDS, os.killpg, (process.pid, signal.SIGKILL))
    overdue.start()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n".join(example(verb)) + "\n")
    process.stdin.close()
    said = []
    for line in process.stdout:
        said.append(line)
        if verb in READY and line.startswith(READY[verb]):
            os.killpg(process.pid, signal.SIGINT)
    code = process.wait()
    overdue.cancel()
    process.stdout.close()
    assert code == 0, "".join(said)
    assert verb not in READY or any(line.startswith(READY[verb]) for line in said)


def test_the_example_of_a_verb_of_verbs_is_one_of_theirs() -> None:
    assert example("insession evaluate") == example("insession evaluate rerank")
