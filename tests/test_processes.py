"""`insession serve --processes 2`: one port, two processes, and none left when one ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from insession.processes import COMMAND
from models import bundle
from tests.made import a_bundle


class Several:
    """The parent as a process, and where its processes answer."""

    def __init__(self, popen: subprocess.Popen[str], log: Path) -> None:
        self.popen, self.log = popen, log
        assert popen.stdout is not None
        self.port = int(re.findall(r":(\d+)", popen.stdout.readline())[0])
        self.own = [int(port) for port in re.findall(r":(\d+)", popen.stdout.readline())]

    def children(self) -> list[int]:
        pids = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.popen.pid and b"spawn_main" in (path / "cmdline").read_bytes():
                    pids.append(int(path.name))
            except OSError:
                continue
        return sorted(pids)


@contextmanager
def several(bundles: Path, folder: Path) -> Iterator[Several]:
    flags = ["--bootstrap", "127.0.0.1:1", "--bundle", str(bundles), "--state", str(folder / "state")]
    log = folder / "log"
    with log.open("w") as errors:
        popen = subprocess.Popen(
            [*COMMAND, "serve", *flags, "--port", "0", "--processes", "2"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert popen.stdout is not None
    with popen, popen.stdout:
        try:
            yield Several(popen, log)
        finally:
            popen.terminate()
            popen.wait(30)


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def gone(pid: int) -> bool:
    ends = time.monotonic() + 15
    while time.monotonic() < ends:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    bundle.write(tmp_path / "bundles", a_bundle())
    return tmp_path / "bundles"


def test_each_process_answers_for_itself_at_its_own_port(bundles: Path, tmp_path: Path) -> None:
    with several(bundles, tmp_path) as running:
        assert len(running.children()) == 2
        request = {"user_id": "u", "candidates": [{"listing_id": "l1"}]}
        for _ in range(20):
            assert ask(running.port, "POST", "/v1/rank", request)[0] == 200
        counted = 0.0
        for port in running.own:
            status, text = ask(port, "GET", "/metrics")
            assert status == 200
            counted += sum(
                map(float, re.findall(rb'_count\{outcome="unknown-user",route="rank"\} (\S+)', text))
            )
        assert counted == 20
        status, said = ask(running.port, "GET", "/metrics")
        assert status == 404
        assert b"at its own port" in said
        assert {path.name for path in (tmp_path / "state").iterdir()} == {"serve-1", "serve-2"}
        running.popen.send_signal(signal.SIGTERM)
        assert running.popen.wait(20) == 0
    assert "Traceback" not in running.log.read_text()


def test_sigterm_drains_all(bundles: Path, tmp_path: Path) -> None:
    with several(bundles, tmp_path) as running:
        body = {"user_id": "u", "candidates": [], "min_offset": 1, "partition": 0, "deadline_ms": 1_000}
        waiting = [http.client.HTTPConnection("127.0.0.1", port, timeout=20) for port in running.own]
        for connection in waiting:
            connection.request("POST", "/v1/rank", json.dumps(body))
        time.sleep(0.3)
        running.popen.send_signal(signal.SIGTERM)
        for connection in waiting:
            assert json.loads(connection.getresponse().read())["outcome"] == "deadline"
            connection.close()
        assert running.popen.wait(20) == 0


def test_where_one_ends_all_do_and_it_is_said(bundles: Path, tmp_path: Path) -> None:
    with several(bundles, tmp_path) as running:
        one, other = running.children()
        os.kill(one, signal.SIGKILL)
        assert running.popen.wait(20) == 1
        assert gone(other)
    assert re.search(
        r"^insession: process [12] ended with code -9, so all end$", running.log.read_text(), re.M
    )


def test_without_the_parent_none_goes_on(bundles: Path, tmp_path: Path) -> None:
    with several(bundles, tmp_path) as running:
        children = running.children()
        running.popen.kill()
        assert all(gone(child) for child in children)


def test_what_is_wrong_is_said_once_each_and_the_code_is_2(bundles: Path, tmp_path: Path) -> None:
    flags = ["--bootstrap", "127.0.0.1:1", "--bundle", str(tmp_path), "--state", str(tmp_path), "--port", "0"]
    done = subprocess.run(
        [*COMMAND, "serve", *flags, "--processes", "2"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert re.match(r"insession: process [12]: no bundle: ", done.stderr)
    assert "Traceback" not in done.stderr


def test_ports_that_are_not_enough_are_one_line(bundles: Path, tmp_path: Path) -> None:
    flags = ["--bootstrap", "127.0.0.1:1", "--bundle", str(bundles), "--state", str(tmp_path / "state")]
    done = subprocess.run(
        [*COMMAND, "serve", *flags, "--processes", "2", "--port", "65534"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "insession: --port 65534: 2 processes need the 2 ports after it too, and 65535 is the last; "
        "give at most 65533\n"
    )
