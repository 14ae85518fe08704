"""A sidecar without Kafka: its states are a dict, and it is asked without a socket."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec
from starlette.applications import Starlette

from models.bundle import Bundle
from models.sessions import UserEmbedding
from models.states import Checkpoint, user_key
from serving import app
from serving.follower import Status
from serving.health import Health
from serving.metrics import Metrics
from serving.ranking import Ranking
from serving.states import States
from tests.made import START, a_bundle, act, show, user_in

BUNDLE = a_bundle(60, markets=["here"] * 40 + ["there"] * 20)
USER = user_in(BUNDLE, show(0, "l3", "l7", "l9"), act(1, "l7"), act(2, "l9", "wishlist"))
NOW = USER.as_of + 1_000


def applied(next_offset: int) -> Checkpoint:
    return Checkpoint(next_offset=next_offset, watermark=START, cluster="c", topics={})


class Served:
    """The application over `values`, caught up, with `USER` in it and one partition applied up to offset 10."""

    def __init__(self, bundle: Bundle = BUNDLE) -> None:
        self.values: dict[bytes, bytes] = {}
        self.states = States(self.values.get)
        self.states.set(1, {0: applied(10)})
        self.status = Status(caught_up=True, problem="", behind=0, seen=NOW, users=1)
        self.metrics = Metrics(bundle.name)
        self.ranking = Ranking(bundle, self.states, self.metrics)
        self.app: Starlette = app.build(
            self.ranking, Health(self.status, self.ranking, self.metrics), self.metrics
        )
        self.put(USER)

    def put(self, user: UserEmbedding) -> None:
        self.values[user_key(user.user_id.encode())] = msgspec.json.encode(user)


class Client:
    """Asks an application, one request at a time."""

    def __init__(self, asked: Starlette) -> None:
        self._app = asked

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        return self._ask("GET", path, arguments)

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        return self._ask("POST", path, arguments)

    def _ask(self, method: str, path: str, arguments: dict[str, Any]) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://sidecar") as client:
                return await client.request(method, path, **arguments)

        return asyncio.run(ask())
