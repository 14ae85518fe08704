"""Connections as bytes on a socket: broken, slow, endless, in pieces and one after the other, while others are answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from serving import connection, server
from serving.connection import Connection
from tests.served import NOW, Served

SECONDS = 0.6
BODY = json.dumps(
    {"user_id": "u", "timestamp": NOW, "candidates": [{"listing_id": f"l{row}"} for row in range(20)]}
).encode()
HEAD = b"POST /v1/rank HTTP/1.1\r\nHost: x\r\n"
REQUEST = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A sidecar in a thread, with less patience than it has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "SECONDS", SECONDS)
        patch.setattr(server, "LOOK_SECONDS", 0.05)
        listening = server.listen("127.0.0.1", 0)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        config = uvicorn.Config(
            Served().app,
            loop="uvloop",
            http=Connection,
            ws="none",
            access_log=False,
            log_config=None,
            timeout_keep_alive=1,
        )
        running = uvicorn.Server(config)
        started = threading.Event()

        def run() -> None:
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                runner.run(server.watched(running, [listening], started.set))

        thread = threading.Thread(target=run)
        thread.start()
        assert started.wait(10)
        yield listening.getsockname()[1]
        running.should_exit = True
        thread.join(10)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def received(client: socket.socket) -> bytes:
    """All up to the end of the connection."""
    said = b""
    try:
        while part := client.recv(1 << 16):
            said += part
    except ConnectionResetError:
        pass
    return said


def answers(port: int) -> bool:
    with connect(port) as client:
        client.sendall(REQUEST.replace(b"Host: x", b"Connection: close"))
        said = received(client)
    return said.startswith(b"HTTP/1.1 200 ") and b'"outcome":"ranked"' in said


def is_problem(said: bytes, status: int) -> bool:
    head, _, body = said.partition(b"\r\n\r\n")
    return (
        head.startswith(b"HTTP/1.1 %d " % status)
        and b"content-type: application/problem+json" in head
        and b"connection: close" in head
        and json.loads(body)["status"] == status
    )


@pytest.mark.parametrize(
    "sent",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        HEAD + b"Content-Length: -5\r\n\r\n",
        b"\x16\x03\x01",
    ],
    ids=["no-http", "no-url", "negative-length", "tls"],
)
def test_what_is_no_http_is_a_problem(port: int, sent: bytes) -> None:
    with connect(port) as client:
        client.sendall(sent)
        assert is_problem(received(client), 400)
    assert answers(port)


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /v1/rank HTT",
        HEAD,
        HEAD + b"Content-Length: 100\r\n\r\n{",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
    ids=["line", "headers", "body", "chunk"],
)
def test_a_request_that_does_not_go_on_is_ended_in_time(port: int, sent: bytes) -> None:
    begun = time.monotonic()
    with connect(port) as client:
        client.sendall(sent)
        assert is_problem(received(client), 408)
    assert SECONDS - 0.01 < time.monotonic() - begun < SECONDS + 1  # a loop counts in whole milliseconds
    assert answers(port)


@pytest.mark.parametrize("head", [HEAD, HEAD + b"Content-Length: 1000\r\n\r\n"], ids=["headers", "body"])
def test_a_request_that_trickles_gains_no_time(port: int, head: bytes) -> None:
    begun = time.monotonic()
    with connect(port) as client:
        client.sendall(head)
        client.settimeout(0.05)
        said = b""
        while not said and time.monotonic() < begun + 5:
            client.sendall(b"x")
            try:
                said = client.recv(1 << 16)
            except TimeoutError:
                continue
        assert said.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - begun < SECONDS + 1


def test_many_slow_ones_hold_up_nobody(port: int) -> None:
    held = [connect(port) for _ in range(300)]
    for client in held:
        client.sendall(HEAD)
    begun = time.monotonic()
    assert answers(port)
    assert time.monotonic() - begun < 0.5
    for client in held:
        assert is_problem(received(client), 408)
        client.close()


def test_silence_from_the_first_is_ended_without_a_word(port: int) -> None:
    with connect(port) as client:
        assert received(client) == b""


def test_an_idle_connection_is_closed(port: int) -> None:
    with connect(port) as client:
        client.sendall(REQUEST)
        begun = time.monotonic()
        assert received(client).count(b"HTTP/1.1 200") == 1
    assert 0.9 < time.monotonic() - begun < 2.5


@pytest.mark.parametrize(
    "endless", [b"X-a: " + b"y" * 1_000 + b"\r\n", b"y" * 1_000], ids=["headers", "line"]
)
def test_an_endless_head_is_refused(port: int, endless: bytes) -> None:
    start = HEAD if endless.startswith(b"X") else b"GET /"
    with connect(port) as client:
        try:
            client.sendall(start)
            for _ in range(3_000):
                client.sendall(endless)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert received(client)[:13] in (
            b"HTTP/1.1 431 ",
            b"",
        )  # the answer may be lost with what was not read
    with connect(port) as client:
        for _ in range(9):
            client.sendall(start + endless * 10)
            start = b""
            time.sleep(0.02)
        assert is_problem(received(client), 431)
    assert answers(port)


def test_an_endless_body_is_refused_chunked_too(port: int) -> None:
    with connect(port) as client:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(100):
                client.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert received(client)[:13] in (b"HTTP/1.1 413 ", b"")
    assert answers(port)


def test_a_body_in_chunks_is_a_body(port: int) -> None:
    with connect(port) as client:
        client.sendall(HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(BODY), 100):
            part = BODY[at : at + 100]
            client.sendall(b"%x\r\n" % len(part) + part + b"\r\n")
        client.sendall(b"0\r\n\r\n")
        assert b'"outcome":"ranked"' in received(client)


def test_requests_one_after_the_other_are_answered_in_order(port: int) -> None:
    paths = [b"/healthz", b"/v1/nothing", b"/v1/similar/l5?k=1", b"/healthz"]
    with connect(port) as client:
        client.sendall(REQUEST + b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths))
        said = received(client)
    statuses = [part.split(b" ")[0] for part in said.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"200", b"404", b"200", b"200"]
    assert said.index(b'"outcome":"ranked"') < said.index(b'"status":"up"') < said.index(b'"nearest"')


def test_while_one_waits_the_next_on_its_connection_is_not_called_slow(port: int) -> None:
    waits = json.loads(BODY) | {"min_offset": 99, "deadline_ms": 1_500}
    body = json.dumps(waits).encode()
    with connect(port) as client:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        client.sendall(REQUEST[:80])
        time.sleep(1.2)
        client.sendall(REQUEST[80:])
        said = received(client)
    assert said.count(b"HTTP/1.1 200") == 2
    assert b"HTTP/1.1 4" not in said


def test_a_client_that_goes_away_leaves_it_serving(port: int) -> None:
    for sent in (REQUEST, REQUEST[:100], b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"):
        with connect(port) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            client.sendall(sent)
    assert answers(port)


def test_an_answer_that_is_not_fetched_is_dropped(port: int) -> None:
    many = [{"listing_id": f"l{row}"} for row in range(60)]
    body = json.dumps({"user_id": "u", "timestamp": NOW, "candidates": many, "explain": True}).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.settimeout(5)
        client.connect(("127.0.0.1", port))
        client.sendall((HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body) * 90)
        begun = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() < begun + 5:
                client.sendall(b"\r\n")
                time.sleep(0.02)
            pytest.fail("it waits on and on")
        assert time.monotonic() - begun > SECONDS / 2
    assert answers(port)


def test_too_many_requests_in_line_are_not_kept(port: int) -> None:
    with connect(port) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000)
        said = received(client)
    assert 1 <= said.count(b"HTTP/1.1 200") < 200
    assert b"connection: close" in said
    assert answers(port)


def test_rubbish_behind_a_request_does_not_cost_it_its_answer(port: int) -> None:
    waits = json.dumps(json.loads(BODY) | {"min_offset": 99, "deadline_ms": 200}).encode()
    with connect(port) as client:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(waits) + waits + b"RUBBISH\r\n\r\n")
        said = received(client)
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.endswith(b"]}")
    assert b'"outcome":"deadline"' in said


@pytest.fixture(autouse=True)
def _no_error_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("name", [b"Upgrade", b"upgrade", b"UPGRADE"])
def test_another_protocol_that_is_wished_for_is_not_taken_and_the_request_answered(
    port: int, name: bytes
) -> None:
    body = b'{"user_id":"u","candidates":[{"listing_id":"l1"}]}'
    wish = b"Connection: Upgrade, HTTP2-Settings\r\n" + name + b": h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    with connect(port) as client:
        for _ in range(2):
            client.sendall(HEAD + wish + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            said = client.recv(1 << 16)
            assert said.startswith(b"HTTP/1.1 200"), said
            assert b'"outcome":"' in said


def test_a_body_may_speak_of_an_upgrade(port: int) -> None:
    body = b'{"user_id":"Upgrade:","candidates":[{"listing_id":"\\r\\nUpgrade: l1"}]}'
    with connect(port) as client:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        said = client.recv(1 << 16)
        assert said.startswith(b"HTTP/1.1 200")
        assert b"Upgrade: l1" in said


@pytest.mark.parametrize("size", [66_000, 100_000])
def test_a_head_that_comes_at_once_has_a_limit_too(port: int, size: int) -> None:
    with connect(port) as client:
        client.sendall(HEAD + b"X-Long: " + b"x" * size + b"\r\nContent-Length: 2\r\n\r\n{}")
        assert is_problem(received(client), 431)
    assert answers(port)


def test_the_short_way_and_the_long_way_take_turns_on_one_connection(port: int) -> None:
    """Plain requests are answered without the application, others by it; both in order, in whatever pieces they come."""
    plain = b'{"user_id":"u","candidates":[{"listing_id":"l1"},{"listing_id":"l2"}]}'
    pinned = b'{"user_id":"u","candidates":[{"listing_id":"l1"},{"listing_id":"l2","pin":1}]}'
    wrong = b'{"user_id":"u","candidates":[{"listing_id":""}]}'
    wanted = [(plain, 200), (pinned, 200), (plain, 200), (wrong, 400), (plain, 200)] * 3
    sent = b"".join(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body for body, _ in wanted)
    for piece in (len(sent), 700, 37):
        client = connect(port)
        for at in range(0, len(sent), piece):
            client.sendall(sent[at : at + piece])
        reader = client.makefile("rb")
        for body, status in wanted:
            head = reader.readline()
            assert head.split()[1] == b"%d" % status, (piece, body, head)
            length = 0
            while (line := reader.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            said = json.loads(reader.read(length))
            if status == 200:
                listings = [one["listing_id"] for one in said["results"]]
                assert listings == (["l2", "l1"] if body is pinned else ["l1", "l2"])
        reader.close()
        client.close()
    assert answers(port)


@pytest.mark.parametrize("head", [HEAD + b"Connection: close\r\n", b"POST /v1/rank HTTP/1.0\r\n"])
def test_a_plain_request_closes_where_it_says_so(port: int, head: bytes) -> None:
    body = b'{"user_id":"u","candidates":[{"listing_id":"l1"}]}'
    with connect(port) as client:
        client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        said = received(client)
    assert said.startswith(b"HTTP/1.1 200")
    assert b"connection: close\r\n" in said or head.endswith(b"1.0\r\n")


def test_where_a_head_ends_between_two_pieces_no_byte_of_the_body_moves(port: int) -> None:
    body = b'{"user_id":"u","candidates":[' + b"\r\nupgrade:" * 20 + b"]}"
    with connect(port) as client:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r" % len(body))
        time.sleep(0.1)
        client.sendall(b"\n" + body)
        time.sleep(0.1)
        client.sendall(REQUEST)
        said = b""
        while said.count(b"HTTP/1.1 ") < 2 or not said.endswith(b"}"):
            said += client.recv(1 << 16)
    assert [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]] == [b"400", b"200"]
