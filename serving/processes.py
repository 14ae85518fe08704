"""Several processes of one sidecar on one port, each with a store of its own and following by itself.

The parent binds the port, and the processes accept from it, whichever is free. What must be asked of one process,
metrics before all, is asked at that process' own port: `port` + 1, + 2 and so on.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from models.errors import UserError
from serving.server import DRAIN_SECONDS, address, listen

Serve = Callable[[int, Sequence[socket.socket], Callable[[], None]], None]
"""Serves until told to end, given its number from 1, the sockets, and what to call once it answers. Can be pickled."""

GRACE_SECONDS = DRAIN_SECONDS + 5.0
MAX_PORT = 65_535


def run(count: int, host: str, port: int, serve: Serve) -> None:
    """Serve with so many processes until told to end. Prints where, once all answer; `port` 0 is a free one.

    None is started again: where one ends, all do, a line says so, and the exit code is 1, or 2 where the process has
    said itself what is wrong. UserError where a port is taken, or there are not enough.
    """
    if port and port + count > MAX_PORT:
        raise UserError(
            f"--port {port}: {count} processes need the {count} ports after it too, and {MAX_PORT} is the last; "
            f"give at most {MAX_PORT - count}"
        )
    shared = listen(host, port)
    own = [listen(host, port + at if port else 0) for at in range(1, count + 1)]
    places = [address(one) for one in (shared, *own)]
    told, tell = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(tell, b"!"))
    processes: list[BaseProcess] = []
    pipes: list[Connection] = []
    try:
        for at, one in enumerate(own, 1):
            process, pipe = _start(serve, at, [shared, one])
            processes.append(process)
            pipes.append(pipe)
        for one in (shared, *own):
            one.close()  # so that clients are refused, and do not wait, once no process is left
        silent, running = list(pipes), True
        while running:
            ready = wait([told, *silent, *(process.sentinel for process in processes)])
            running = told not in ready and all(process.exitcode is None for process in processes)
            for pipe in [pipe for pipe in silent if running and pipe in ready]:
                with contextlib.suppress(EOFError):  # it has ended; its exit code comes next
                    pipe.recv()
                    silent.remove(pipe)
                    if not silent:
                        print(f"serving on {places[0]}")
                        print(f"each process by itself: {', '.join(places[1:])}", flush=True)
        ended = next((process for process in processes if process.exitcode is not None), None)
    finally:
        _end(processes)
    if told in ready or ended is None:
        return
    if ended.exitcode != 2:
        print(f"insession: {ended.name} ended with code {ended.exitcode}, so all end", file=sys.stderr)
    sys.exit(2 if ended.exitcode == 2 else 1)


def _start(serve: Serve, number: int, sockets: list[socket.socket]) -> tuple[BaseProcess, Connection]:
    """A process, and the pipe through which it says that it answers."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(
        target=_child, args=(serve, number, sockets, theirs), name=f"process {number}", daemon=True
    )
    process.start()
    theirs.close()
    return process, ours


def _child(serve: Serve, number: int, sockets: list[socket.socket], pipe: Connection) -> None:
    def end_with_the_parent() -> None:
        with contextlib.suppress(EOFError, OSError):
            pipe.recv()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_the_parent, daemon=True).start()
    try:
        serve(number, sockets, lambda: pipe.send(None))
    except UserError as error:
        print(f"insession: process {number}: {error}", file=sys.stderr)
        sys.exit(2)


def _end(processes: list[BaseProcess]) -> None:
    """Let them drain, and end those that do not."""
    for process in processes:
        if process.exitcode is None:
            process.terminate()
    ends = time.monotonic() + GRACE_SECONDS
    for process in processes:
        process.join(max(0.0, ends - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()
