"""The bare application: decodes a rank request and answers fixed bytes of the length given."""

from __future__ import annotations

import socket
import sys

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.api import RankRequest

ANSWER = b"x" * int(sys.argv[1])
DECODER = msgspec.json.Decoder(RankRequest)


async def rank(request: Request) -> Response:
    DECODER.decode(await request.body())
    return Response(ANSWER, media_type="application/json")


listening = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
config = uvicorn.Config(
    Starlette(routes=[Route("/v1/rank", rank, methods=["POST"])]),
    loop="uvloop",
    http="httptools",
    access_log=False,
    log_config=None,
    server_header=False,
    date_header=False,
)
uvicorn.Server(config).run(sockets=[listening])
