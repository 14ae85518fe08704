"""`insession serve` as a process, with no broker: it says so, and answers."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from insession.processes import Process, insession
from models import bundle
from tests.made import a_bundle

NOWHERE = ("--bootstrap", "127.0.0.1:1")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    bundle.write(folder, a_bundle())
    return folder


@pytest.fixture(scope="module")
def sidecar(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("serve")
    flags = ("--bundle", str(bundles), "--state", str(folder / "state"), "--port", "0")
    with insession("serve", *NOWHERE, *flags, ready="serving on ", log=folder / "log") as running:
        yield running


def address(sidecar: Process) -> tuple[str, int]:
    host, _, port = sidecar.line.removeprefix("serving on http://").partition(":")
    return host, int(port)


def ask(sidecar: Process, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection(*address(sidecar), timeout=20)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def raw(sidecar: Process, sent: bytes) -> bytes:
    """What comes back for these bytes, up to when the connection ends or falls silent."""
    with socket.create_connection(address(sidecar), timeout=2) as connection:
        received = b""
        try:
            connection.sendall(sent)
            while part := connection.recv(65_536):
                received += part
        except OSError:
            pass
        return received


def answers(sidecar: Process) -> bool:
    status, said = ask(sidecar, "POST", "/v1/rank", {"user_id": "u", "candidates": [{"listing_id": "l1"}]})
    return status == 200 and said["outcome"] == "unknown-user"


def fails(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "insession.main", "serve", *NOWHERE, *arguments]
    done = subprocess.run(command, capture_output=True, timeout=60, text=True, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_it_listens_on_this_machine_only_and_answers(sidecar: Process) -> None:
    assert address(sidecar)[0] == "127.0.0.1"
    assert ask(sidecar, "GET", "/healthz") == (200, {"status": "up"})
    assert answers(sidecar)


def test_it_is_not_ready_and_says_that_no_broker_answers(sidecar: Process) -> None:
    ends = time.monotonic() + 20
    while True:
        status, said = ask(sidecar, "GET", "/readyz")
        assert status == 503
        if "no Kafka broker answers at 127.0.0.1:1" in str(said["reasons"]):
            return
        assert time.monotonic() < ends, said
        time.sleep(0.1)


@pytest.mark.parametrize(
    "sent",
    [
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{}",
        b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    ],
    ids=["no-http", "tls", "negative-length", "truncated", "bad-chunk", "long-line", "many-headers"],
)
def test_what_is_no_proper_request_leaves_it_serving(sidecar: Process, sent: bytes) -> None:
    assert b"Traceback" not in raw(sidecar, sent)
    assert answers(sidecar)


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(sidecar: Process) -> None:
    head = b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"
    assert raw(sidecar, head + b" " * 100).startswith(b"HTTP/1.1 413")
    assert answers(sidecar)


def test_sigterm_lets_a_request_end_and_exits_with_0(bundles: Path, tmp_path: Path) -> None:
    flags = ("--bundle", str(bundles), "--state", str(tmp_path / "state"), "--port", "0")
    with insession("serve", *NOWHERE, *flags, ready="serving on ", log=tmp_path / "log") as running:
        connection = http.client.HTTPConnection(*address(running), timeout=20)
        body = {"user_id": "u", "candidates": [], "min_offset": 1, "partition": 0, "deadline_ms": 1_000}
        connection.request("POST", "/v1/rank", json.dumps(body))
        time.sleep(0.3)
        running.popen.send_signal(signal.SIGTERM)
        answer = connection.getresponse()
        assert json.loads(answer.read())["outcome"] == "deadline"
        connection.close()
        assert running.popen.wait(20) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_missing_bundle_is_one_line(tmp_path: Path) -> None:
    code, says = fails("--bundle", str(tmp_path / "none"), "--state", str(tmp_path / "state"))
    assert code == 2
    assert says.startswith("insession: no bundle: ")
    assert says.count("\n") == 1


def test_a_port_in_use_is_one_line(sidecar: Process, bundles: Path, tmp_path: Path) -> None:
    flags = ("--bundle", str(bundles), "--state", str(tmp_path / "state"))
    code, says = fails(*flags, "--port", str(address(sidecar)[1]))
    assert code == 2
    assert "Address already in use" in says
    assert says.count("\n") == 1


def test_a_store_that_another_process_has_is_one_line(bundles: Path, tmp_path: Path) -> None:
    flags = ("--bundle", str(bundles), "--state", str(tmp_path / "state"), "--port", "0")
    with insession("serve", *NOWHERE, *flags, ready="serving on ", log=tmp_path / "log"):
        code, says = fails(*flags)
    assert code == 2
    assert says.startswith("insession: another process keeps its states in")
    assert says.count("\n") == 1


def test_a_state_folder_that_is_a_file_is_one_line(bundles: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, says = fails("--bundle", str(bundles), "--state", str(tmp_path / "file"), "--port", "0")
    assert code == 2
    assert (
        says == f"insession: {tmp_path / 'file'} can't be written: File exists; give a folder with --state\n"
    )
    assert says.count("\n") == 1
