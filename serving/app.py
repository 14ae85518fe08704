"""The routes: each reads its request, has it answered, and is measured; what goes wrong becomes a problem."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from models.events import Id
from serving import _lists, access, api
from serving.connection import Direct, Headers, Parts
from serving.health import Health
from serving.metrics import Metrics
from serving.posts import post
from serving.problems import MAX_BATCH_BODY, MAX_BODY, Gone, Refused, decode, named
from serving.ranking import Ranking

log = logging.getLogger("insession.serving")

Handler = Callable[[Request, float], tuple[str, bytes]]
"""Takes a request and when it came (time.perf_counter); gives the outcome, for the metrics, and the JSON answer."""

_encode = msgspec.json.Encoder().encode
_rank = partial(decode, msgspec.json.Decoder(api.RankRequest))
_batch = partial(decode, msgspec.json.Decoder(api.BatchRequest))
_recommend = partial(decode, msgspec.json.Decoder(api.RecommendRequest))


class App:
    """The application. What ranks is reached without a framework on its way; Starlette has the rest."""

    def __init__(
        self,
        starlette: Starlette,
        posts: dict[str, ASGIApp],
        direct: dict[str, Direct],
        token: bytes = b"",
    ) -> None:
        self.routes = starlette.routes
        self._token = token
        self.direct = {path.encode(): self._allowed(path, answer) for path, answer in direct.items()}
        """What a `Connection` may have answered without the rest."""
        self._starlette = starlette
        self._posts = posts

    def _allowed(self, path: str, answer: Direct) -> Direct:
        """What answers those who may ask, and leaves others to `__call__`."""

        def allowed(body: bytes, headers: Headers) -> Parts | None:
            try:
                access.check({"path": path, "headers": headers}, self._token)
            except Refused:
                return None
            return answer(body, headers)

        return allowed if self._token else answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if self._token:
                try:
                    access.check(scope, self._token)
                except Refused as refused:
                    await refused.response()(scope, receive, send)
                    return
            route = self._posts.get(scope["path"])
            if route is not None and scope["method"] == "POST":
                await route(scope, receive, send)
                return
        await self._starlette(scope, receive, send)


class _Posted:
    """A route as Starlette sees it: to refuse other methods, and to be listed."""

    def __init__(self, route: ASGIApp) -> None:
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._route(scope, receive, send)


def build(
    ranking: Ranking,
    health: Health,
    metrics: Metrics,
    *,
    lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]] | None = None,
    pages: Sequence[BaseRoute] = (),
    token: str = "",
    shared: int | None = None,
) -> App:
    """The application, with `pages` beside the API's routes; with a `token` for those who bear it.

    `shared` is the port where other processes answer too, and metrics therefore are not to be had.
    """

    async def rank(request: api.RankRequest, now: int, begun: float) -> tuple[str, bytes]:
        answer = await ranking.rank(request, now, begun)
        return answer.outcome, _encode(answer)

    def rank_now(body: bytes, _: Headers) -> Parts | None:
        begun = time.perf_counter()
        try:
            asked = _lists.asked(body)
            if asked is None:
                return None
            answer = ranking.rank_now(asked, _now(), begun)
        except Refused:
            return None  # the long way says what is wrong
        except Exception:
            log.exception("a plain ranking failed, and is asked again the long way")
            return None
        results = memoryview(answer.results)  # type: ignore[arg-type]
        head = _encode(msgspec.structs.replace(answer, results=None))  # it ends with `null}`
        metrics.observe("rank", answer.outcome, time.perf_counter() - begun)
        return head[:-5], results, b"}"

    async def batch(request: api.BatchRequest, now: int, begun: float) -> tuple[str, bytes]:
        answer = await ranking.batch(request, now, begun)
        for one in answer.answers:
            metrics.outcomes.labels("batch", one.outcome).inc()
        return "answered", _encode(answer)

    async def recommend(request: api.RecommendRequest, now: int, begun: float) -> tuple[str, bytes]:
        answer = await ranking.recommend(request, now, begun)
        return answer.outcome, _encode(answer)

    def similar(request: Request, begun: float) -> tuple[str, bytes]:
        given = {**request.query_params, "listing_id": request.path_params["listing_id"]}
        answer = ranking.similar(_converted(given, api.SimilarRequest), _now(), begun)
        return answer.outcome, _encode(answer)

    def user(request: Request, begun: float) -> tuple[str, bytes]:
        return "answered", _encode(ranking.user(_path(request, "user_id"), _now()))

    def partitions(request: Request, begun: float) -> tuple[str, bytes]:
        return "answered", _encode(ranking.partitions())

    async def healthz(request: Request) -> Response:
        return Response(_encode(api.Health()), media_type="application/json")

    async def readyz(request: Request) -> Response:
        answer = health.readiness(_now())
        return Response(_encode(answer), 200 if answer.ready else 503, media_type="application/json")

    async def prometheus(request: Request) -> Response:
        if shared is not None and (request.scope.get("server") or (None, None))[1] == shared:
            says = "several processes answer here: ask each at its own port, the ones after this"
            raise Refused(404, says)
        health.measure(_now())
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def measured(name: str, handler: Handler, *parameters: str) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            begun = time.perf_counter()
            try:
                given = [key for key, _ in request.query_params.multi_items()]
                if unknown := set(given) - {*parameters}:
                    raise Refused(400, "there is no such parameter", field=min(unknown))
                if len(given) > len(set(given)):
                    twice = next(key for key in given if given.count(key) > 1)
                    raise Refused(400, "this parameter is given twice", field=twice)
                outcome, body = handler(request, begun)
                response = Response(body, media_type="application/json")
            except Refused as refused:
                outcome, response = refused.outcome, refused.response()
            except Exception:
                log.exception("%s failed", name)
                outcome, response = "error", Refused(500, "see the sidecar's log").response()
            metrics.observe(name, outcome, time.perf_counter() - begun)
            return response

        return endpoint

    posts = {
        "/v1/rank": post("rank", _rank, rank, metrics, MAX_BODY),
        "/v1/rank/batch": post("batch", _batch, batch, metrics, MAX_BATCH_BODY),
        "/v1/recommend": post("recommend", _recommend, recommend, metrics, MAX_BODY),
    }
    app = Starlette(
        routes=[
            *(Route(path, _Posted(route), methods=["POST"]) for path, route in posts.items()),
            Route(
                "/v1/similar/{listing_id:path}",
                measured("similar", similar, "k", "market", "user_id", "exclude_seen"),
            ),
            Route("/v1/users/{user_id:path}", measured("users", user)),
            Route("/v1/partitions", measured("partitions", partitions)),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", prometheus),
            *pages,
        ],
        exception_handlers={HTTPException: _problem, Refused: _refused, Gone: _gone},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return App(app, posts, {"/v1/rank": rank_now}, token.encode())


def _path(request: Request, name: str) -> str:
    """An id in the path: it may have slashes."""
    try:
        return msgspec.convert(request.path_params[name], Id)
    except msgspec.ValidationError as error:
        raise Refused(400, str(error), field=name) from None


T = TypeVar("T")


def _converted(given: dict[str, str], type_: type[T]) -> T:
    """Parameters, by name, as their type."""
    try:
        return msgspec.convert(given, type_, strict=False)
    except msgspec.ValidationError as error:
        says, field = named(error)
        raise Refused(400, says, field=field.removeprefix("$.")) from None


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


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


def _now() -> int:
    return time.time_ns() // 1_000_000
