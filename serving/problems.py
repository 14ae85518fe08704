"""Errors as problem details (RFC 9457) that name the field; how a request's body becomes a struct or such a problem.

400 is what is not as the schema says; 422 is what is, and contradicts itself or what is there.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope

from serving import api

TYPES = {
    307: ("elsewhere", "Another sidecar has this user"),
    400: ("invalid-request", "The request is not as it must be"),
    401: ("unauthorized", "The bearer token is missing or wrong"),
    404: ("not-found", "There is no such thing"),
    405: ("method-not-allowed", "The method is not allowed here"),
    408: ("too-slow", "The request did not come in time"),
    413: ("too-large", "The request is too large"),
    421: ("elsewhere", "Another sidecar has this user"),
    422: ("contradictory", "The request contradicts itself or what is there"),
    431: ("too-large", "The request's head is too large"),
    500: ("internal-error", "The sidecar failed"),
    503: ("unavailable", "This can't be done now"),
}
MAX_BODY = 1 << 20
"""Bytes a request's body may have: room for a thousand candidates with long ids."""
MAX_BATCH_BODY = 4 << 20
"""Bytes that of a batch may have."""
PROBLEM = "application/problem+json"

_AT = re.compile(r" - at `(?:key in )?(\$.*)`$")
_NAMED = re.compile(r"(?:required|unknown) field `(.*?)`")

T = TypeVar("T")


class Refused(Exception):
    """A request that is answered with a problem."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        field: str | None = None,
        partition: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        name, title = TYPES.get(status, ("problem", "The request failed"))
        self.problem = api.Problem(
            type=f"urn:insession:problem:{name}",
            title=title,
            status=status,
            detail=detail,
            field=field,
            partition=partition,
        )
        self.headers = headers

    def within(self, place: str) -> Refused:
        """The same of a request that stands at `place` in the body."""
        field = (self.problem.field or "$").replace("$", place, 1)
        return Refused(self.problem.status, self.problem.detail, field=field)

    @property
    def outcome(self) -> str:
        """For the metrics."""
        return "elsewhere" if self.problem.status in (307, 421) else "refused"

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(self.problem)

    def response(self) -> Response:
        return Response(
            self.body,
            self.problem.status,
            headers=self.headers,
            media_type=PROBLEM,
        )


class Gone(Exception):
    """The client has closed the connection before it had said all."""


async def read(scope: Scope, receive: Receive, limit: int = MAX_BODY) -> bytes:
    """The request's body, of which little more than `limit` bytes are ever held.

    Raises Refused (413) where it has more, and Gone.
    """
    size = 0
    for name, value in scope["headers"]:
        if name == b"content-length":
            size = int(value) if value.isdigit() and len(value) < 20 else 0
    body = b""
    if size <= limit:
        message = await receive()
        body = message.get("body", b"")
        if message["type"] == "http.disconnect":
            raise Gone
        if message.get("more_body"):
            chunks = [body]
            size = len(body)
            while message.get("more_body") and size <= limit:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
            body = b"".join(chunks)
        size = len(body)
    if size > limit:
        # What is still on its way is not read: the connection ends with the answer.
        raise Refused(413, f"the body has more than {limit} bytes", headers={"connection": "close"})
    return body


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The body as its type. Raises Refused (400) that says what is wrong and names the field."""
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            if "got `float`" not in str(error):
                raise
            return msgspec.convert(_integers(msgspec.json.decode(body)), decoder.type)
    except msgspec.ValidationError as error:
        says, field = named(error)
        raise Refused(400, says, field=field) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}") from None


def _integers(value: Any) -> Any:
    """The value with 3 for 3.0: an integer is a number without a fraction, as JSON Schema has it."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, list):
        return [_integers(item) for item in value]
    if isinstance(value, dict):
        return {key: _integers(item) for key, item in value.items()}
    return value


def named(error: msgspec.ValidationError) -> tuple[str, str]:
    """What is wrong, and the field it is about."""
    said = str(error)
    at, field = _AT.search(said), _NAMED.search(said)
    return _AT.sub("", said), (at.group(1) if at else "$") + (f".{field.group(1)}" if field else "")
