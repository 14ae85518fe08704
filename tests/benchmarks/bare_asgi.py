"""The bare application: on the sidecar's own server, decodes a rank request and answers fixed bytes of the length given."""

from __future__ import annotations

import asyncio
import socket
import sys

import msgspec
import uvicorn
from starlette.types import Receive, Scope, Send

from serving.api import RankRequest
from serving.problems import MAX_BODY, read
from serving.server import configured, watched

ANSWER = b"x" * int(sys.argv[1])
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
DECODER = msgspec.json.Decoder(RankRequest)


async def rank(scope: Scope, receive: Receive, send: Send) -> None:
    DECODER.decode(await read(scope, receive, MAX_BODY))
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await rank(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def serve() -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    where = f"http://127.0.0.1:{listening.getsockname()[1]}"
    await watched(uvicorn.Server(CONFIG), [listening], lambda: print(where, flush=True))


CONFIG = configured(bare)
with asyncio.Runner(loop_factory=CONFIG.get_loop_factory()) as runner:
    runner.run(serve())
