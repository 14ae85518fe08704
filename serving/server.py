"""Runs the sidecar: a socket, the store, the follower and uvicorn, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from models import bundle as bundles
from models.bundle import Bundle
from models.current import Current
from models.errors import UserError
from models.store import opened
from models.topics import Topics
from serving import app, demo
from serving.cluster import Client
from serving.connection import IDLE_SECONDS, LOOK_SECONDS, Connection, look
from serving.follower import Follower
from serving.health import Health
from serving.memory import Memory
from serving.metrics import Metrics
from serving.partitions import Peers
from serving.ranking import Ranking
from serving.shadow import Shadow
from serving.states import States
from serving.variants import Variants
from serving.watch import Watch, tried

log = logging.getLogger("insession.serving")

SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter while another waits: the follower's work is not to hold up requests."""
DRAIN_SECONDS = 10
"""How long requests under way may take once the sidecar is told to end: as long as the longest deadline."""


MEMORY_MB = 1_024
"""What users' records may take in memory: those of a million, as visitors mostly are."""


def run(
    *,
    client: Client,
    topics: Topics,
    bundle: Path,
    state: Path,
    host: str,
    port: int,
    token: str = "",
    variants: Variants | None = None,
    peers: Peers | None = None,
    log_users: bool = False,
    sockets: Sequence[socket.socket] | None = None,
    started: Callable[[], None] | None = None,
    held: frozenset[int] | None = None,
    shadow: Path | None = None,
    shadow_share: float = 0.0,
    page: bool = False,
    memory_mb: int = MEMORY_MB,
) -> None:
    """Serve until told to end. Prints where, once requests are answered; `port` 0 is a free one.

    As one of several processes it is given the `sockets`, the shared one first, and what to call once it has `started`.

    UserError where the bundle can't be read, the port is taken or another process has the store.
    """
    current = Current(bundle)
    loaded = current.load()
    tried(loaded)
    beside = bundles.load(shadow) if shadow is not None else None
    if beside is not None:
        tried(beside)
    sys.setswitchinterval(SWITCH_SECONDS)
    dealt = variants or Variants()
    own = {one.name: bundles.load(one.bundle) for one in dealt.all if one.bundle is not None}
    for one in own.values():
        tried(one)
    gc.freeze()  # what is loaded now stays: collections need not look at it again
    listening = list(sockets) if sockets is not None else [listen(host, port)]
    with contextlib.closing(opened(state)) as store:
        metrics = Metrics(loaded.name, loaded.manifest.index)
        shadowing = Shadow(beside, shadow_share, metrics) if beside is not None else None
        ranking = Ranking(
            loaded,
            States(store.get, held, Memory(memory_mb << 20)),
            metrics=metrics,
            variants=dealt,
            bundles=own,
            peers=peers or {},
            log_users=log_users,
            shadow=shadowing,
        )
        follower = Follower(
            client, topics, store, ranking.states, metrics, loaded, list(own.values()), beside
        )

        def switch(new: Bundle) -> None:
            log.info("bundle %s in place of %s", new.name, ranking.bundle.name)
            ranking.bundle = new
            metrics.use(new.name, new.manifest.index)
            gc.collect()  # else what garbage there is would stay too
            gc.freeze()

        watch = Watch(current, lambda new: follower.take(new, switch), follower.status, metrics)
        del loaded  # the old one is to go once there is a new one
        shown = demo.Demo(ranking, client, topics) if page else None

        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            follower.start(asyncio.get_running_loop())
            watch.start()
            if shadowing is not None:
                shadowing.start()
            yield
            if shadowing is not None:
                shadowing.stop()
            watch.stop()
            follower.stop()

        application = app.build(
            ranking,
            Health(follower.status, ranking, metrics),
            metrics,
            lifespan=lifespan,
            pages=shown.routes() if shown else (),
            token=token,
            shared=listening[0].getsockname()[1] if len(listening) > 1 else None,
        )
        config = configured(application)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_serve(uvicorn.Server(config), listening, started))


def configured(application: ASGIApp) -> uvicorn.Config:
    """The server, as it is set up for an application."""
    return uvicorn.Config(
        application,
        loop="uvloop",
        http=Connection,
        ws="none",
        proxy_headers=False,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


async def _serve(
    server: uvicorn.Server, listening: list[socket.socket], started: Callable[[], None] | None
) -> None:
    # uvicorn drains, then raises the signal again for whoever handled it before: us, so that we end with 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    where = address(listening[0])
    await watched(server, listening, started or (lambda: print(f"serving on {where}", flush=True)))


async def watched(
    server: uvicorn.Server, listening: list[socket.socket], started: Callable[[], None]
) -> None:
    """Serve until told to end, with an eye on the connections; `started` is called once requests are answered."""
    serving = asyncio.create_task(server.serve(sockets=listening))
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    if server.started:
        started()
    loop = asyncio.get_running_loop()
    while not serving.done():
        look(server.server_state.connections, loop.time())
        await asyncio.wait([serving], timeout=LOOK_SECONDS)
    await serving


def address(listening: socket.socket) -> str:
    """The URL of a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address. UserError where that can't be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
            listening.listen(1024)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        says = error.strerror or str(error)
        raise UserError(
            f"can't listen on {host}:{port}: {says}; choose another with --port (0: a free one)"
        ) from None
    return listening
