"""The OpenAPI 3.1 document of the API, made from its types."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from models.events import Id
from serving import api
from serving.access import OPEN
from serving.problems import MAX_BATCH_BODY, MAX_BODY, PROBLEM, TYPES

VERSION = "1.0.0"
"""Of the API, not of the program."""
REF = "#/components/schemas/{name}"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Operation:
    """A route as a client sees it."""

    method: str
    path: str
    summary: str
    response: type | None
    """None: plain text."""
    request: type | None = None
    parameters: dict[str, tuple[str, Any, str]] = field(default_factory=dict)
    """By name: `path` or `query`, the type, and what it says."""
    problems: tuple[int, ...] = ()
    responses: dict[int, str] = field(default_factory=dict)
    """Other statuses with the same response, and what they mean."""
    limit: int = MAX_BODY
    """Bytes a body may have."""


ELSEWHERE = (307, 421)

OPERATIONS = (
    Operation(
        "post",
        "/v1/rank",
        "Rank the caller's candidates for a visitor, by what they did in this visit",
        api.RankResponse,
        api.RankRequest,
        problems=(400, 408, 413, 422, *ELSEWHERE),
    ),
    Operation(
        "post",
        "/v1/rank/batch",
        "Rank several lists, each for its visitor",
        api.BatchResponse,
        api.BatchRequest,
        problems=(400, 408, 413, 422),
        limit=MAX_BATCH_BODY,
    ),
    Operation(
        "post",
        "/v1/recommend",
        "Retrieve listings that go with a visitor's session, and rank them",
        api.RecommendResponse,
        api.RecommendRequest,
        problems=(400, 408, 413, 422, *ELSEWHERE),
    ),
    Operation(
        "get",
        "/v1/similar/{listing_id}",
        "The listings nearest to a listing",
        api.SimilarResponse,
        parameters={
            "listing_id": ("path", Id, "the listing"),
            "k": ("query", api.K, "how many, 10 where absent"),
            "market": ("query", Id, "only in this market"),
            "user_id": ("query", Id, "rank them for this visitor,"),
            "exclude_seen": ("query", bool, "and leave out what was acted on in their open sessions"),
        },
        problems=(400, 404, *ELSEWHERE),
    ),
    Operation(
        "get",
        "/v1/users/{user_id}",
        "What is known of a user",
        api.UserResponse,
        parameters={"user_id": ("path", Id, "the user")},
        problems=(400, 404, *ELSEWHERE),
    ),
    Operation(
        "get",
        "/v1/partitions",
        "Which users' states are here, and how a user's partition is found",
        api.Partitions,
    ),
    Operation("get", "/healthz", "Whether the process is up", api.Health),
    Operation(
        "get",
        "/readyz",
        "Whether requests should be sent here",
        api.Readiness,
        responses={503: "Not ready, and why"},
    ),
    Operation("get", "/metrics", "Prometheus metrics", None),
)


def document() -> dict[str, Any]:
    """The document."""
    types: list[Any] = [api.Problem]
    for operation in OPERATIONS:
        types += [type_ for type_ in (operation.request, operation.response) if type_ is not None]
        types += [type_ for _, type_, _ in operation.parameters.values()]
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    schema = dict(zip((repr(type_) for type_ in types), schemas, strict=True))
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, schema)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "insession sidecar",
            "version": VERSION,
            "summary": "Re-ranks a search's results for what the visitor is looking for now",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:8080"}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Needed where the sidecar was given INSESSION_TOKEN.",
                }
            },
        },
    }


def _operation(operation: Operation, schema: dict[str, Any]) -> dict[str, Any]:
    name = re.sub(r"/{.*?}", "", operation.path.strip("/").removeprefix("v1/")).replace("/", "_")
    described: dict[str, Any] = {"operationId": name, "summary": operation.summary}
    if operation.parameters:
        described["parameters"] = [
            {
                "name": parameter,
                "in": where,
                "required": where == "path",
                "description": says,
                "schema": schema[repr(type_)],
            }
            for parameter, (where, type_, says) in operation.parameters.items()
        ]
    if operation.request is not None:
        described["requestBody"] = {
            "required": True,
            "description": f"At most {operation.limit} bytes.",
            "content": {JSON: {"schema": schema[repr(operation.request)]}},
        }
    content = (
        {JSON: {"schema": schema[repr(operation.response)]}}
        if operation.response is not None
        else {"text/plain": {"schema": {"type": "string"}}}
    )
    responses = {"200": {"description": "The answer", "content": content}}
    for status, says in operation.responses.items():
        responses[str(status)] = {"description": says, "content": content}
    problem = {PROBLEM: {"schema": schema[repr(api.Problem)]}}
    if operation.path in OPEN:
        described["security"] = []
    for status in (*operation.problems, *(() if operation.path in OPEN else (401,))):
        responses[str(status)] = {"description": TYPES[status][1], "content": problem}
    responses["default"] = {"description": "Another problem", "content": problem}
    described["responses"] = responses
    return described
