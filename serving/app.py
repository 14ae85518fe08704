"""The routes: each reads its request, has it answered, and is measured; what goes wrong becomes a problem."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from models.events import Id
from serving import api
from serving.health import Health
from serving.metrics import Metrics
from serving.problems import Refused, decode, read
from serving.ranking import Ranking

log = logging.getLogger("insession.serving")

Handler = Callable[[Request, float], Awaitable[tuple[str, bytes]]]
"""Takes a request and when it came (time.perf_counter); gives the outcome, for the metrics, and the JSON answer."""

_encode = msgspec.json.Encoder().encode
_rank_decoder = msgspec.json.Decoder(api.RankRequest)
_recommend_decoder = msgspec.json.Decoder(api.RecommendRequest)


def build(
    ranking: Ranking,
    health: Health,
    metrics: Metrics,
    *,
    lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]] | None = None,
    pages: Sequence[BaseRoute] = (),
) -> Starlette:
    """The application, with `pages` beside the API's routes."""

    async def rank(request: Request, begun: float) -> tuple[str, bytes]:
        answer = await ranking.rank(decode(_rank_decoder, await read(request)), _now(), begun)
        return answer.outcome, _encode(answer)

    async def recommend(request: Request, begun: float) -> tuple[str, bytes]:
        answer = await ranking.recommend(decode(_recommend_decoder, await read(request)), _now(), begun)
        return answer.outcome, _encode(answer)

    async def similar(request: Request, begun: float) -> tuple[str, bytes]:
        listing, market = _path(request, "listing_id"), request.query_params.get("market")
        answer = ranking.similar(listing, _parameter(request, "k", api.K, 10), market, begun)
        return "answered", _encode(answer)

    async def user(request: Request, begun: float) -> tuple[str, bytes]:
        return "answered", _encode(ranking.user(_path(request, "user_id"), _now()))

    async def healthz(request: Request) -> Response:
        return Response(_encode(api.Health()), media_type="application/json")

    async def readyz(request: Request) -> Response:
        answer = health.readiness(_now())
        return Response(_encode(answer), 200 if answer.ready else 503, media_type="application/json")

    async def prometheus(request: Request) -> Response:
        health.measure(_now())
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def measured(name: str, handler: Handler, *parameters: str) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            begun = time.perf_counter()
            try:
                if unknown := request.query_params.keys() - {*parameters}:
                    raise Refused(400, "there is no such parameter", field=min(unknown))
                outcome, body = await handler(request, begun)
                response = Response(body, media_type="application/json")
            except Refused as refused:
                outcome, response = "refused", refused.response()
            except ClientDisconnect:
                outcome, response = "gone", Response(status_code=499)
            except Exception:
                log.exception("%s failed", name)
                outcome, response = "error", Refused(500, "see the sidecar's log").response()
            metrics.observe(name, outcome, time.perf_counter() - begun)
            return response

        return endpoint

    app = Starlette(
        routes=[
            Route("/v1/rank", measured("rank", rank), methods=["POST"]),
            Route("/v1/recommend", measured("recommend", recommend), methods=["POST"]),
            Route("/v1/similar/{listing_id:path}", measured("similar", similar, "k", "market")),
            Route("/v1/users/{user_id:path}", measured("users", user)),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", prometheus),
            *pages,
        ],
        exception_handlers={HTTPException: _problem, Refused: _refused},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def _path(request: Request, name: str) -> str:
    """An id in the path: it may have slashes."""
    try:
        return msgspec.convert(request.path_params[name], Id)
    except msgspec.ValidationError as error:
        raise Refused(400, str(error), field=name) from None


def _parameter(request: Request, name: str, type_: object, default: int) -> int:
    """A number in the query."""
    value = request.query_params.get(name)
    if value is None:
        return default
    try:
        return int(msgspec.convert(value, type_, strict=False))
    except msgspec.ValidationError as error:
        raise Refused(400, str(error), field=name) from None


async def _problem(request: Request, error: Exception) -> Response:
    """What the router refuses."""
    assert isinstance(error, HTTPException)
    details = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.method} is not for {request.url.path}",
    }
    headers = dict(error.headers) if error.headers else None
    return Refused(
        error.status_code, details.get(error.status_code, error.detail), headers=headers
    ).response()


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response()


def _now() -> int:
    return time.time_ns() // 1_000_000
