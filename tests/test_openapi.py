from __future__ import annotations

import json
import re
from typing import Any

from starlette.routing import Route

from insession import contracts
from serving import api, openapi
from tests.served import Served

DOCUMENT = openapi.document()


def test_the_committed_document_is_what_the_types_say() -> None:
    path = contracts.DOCS / "openapi.json"
    assert json.loads(path.read_bytes()) == json.loads(json.dumps(DOCUMENT)), "stale: run `make contracts`"


def test_every_route_is_in_the_document_and_no_other() -> None:
    routes = {
        (re.sub(r":path", "", route.path), method.lower())
        for route in Served().app.routes
        if isinstance(route, Route) and route.include_in_schema
        for method in set(route.methods or ()) - {"HEAD"}
    }
    described = {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert described == routes


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(DOCUMENT)
    names = set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', text))
    assert names <= DOCUMENT["components"]["schemas"].keys()
    assert {"RankRequest", "RankResponse", "Problem"} <= names


def test_the_limits_are_in_the_document() -> None:
    request = DOCUMENT["components"]["schemas"]["RankRequest"]
    assert request["properties"]["candidates"]["maxItems"] == api.MAX_CANDIDATES
    assert request["additionalProperties"] is False
    assert set(request["required"]) == {"user_id", "candidates"}
    [k] = [item for item in parameters("/v1/similar/{listing_id}") if item["name"] == "k"]
    assert k["schema"] == {"type": "integer", "minimum": 1, "maximum": api.MAX_K}


def test_every_problem_is_a_problem() -> None:
    for path in DOCUMENT["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if status == "default" or (status.startswith("4")):
                    assert list(response["content"]) == [openapi.PROBLEM]


def parameters(path: str) -> list[dict[str, Any]]:
    described: list[dict[str, Any]] = DOCUMENT["paths"][path]["get"]["parameters"]
    return described
