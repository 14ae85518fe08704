"""Errors as problem details (RFC 9457) that name the field; how a request's body becomes a struct or such a problem."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serving import api

TYPES = {
    400: ("invalid-request", "The request is not as it must be"),
    404: ("not-found", "There is no such thing"),
    405: ("method-not-allowed", "The method is not allowed here"),
    413: ("too-large", "The request is too large"),
    500: ("internal-error", "The sidecar failed"),
    503: ("unavailable", "This can't be done now"),
}
MAX_BODY = 1 << 20
"""Bytes a request's body may have: room for a thousand candidates with long ids."""

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
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        name, title = TYPES.get(status, ("problem", "The request failed"))
        self.problem = api.Problem(
            type=f"urn:insession:problem:{name}", title=title, status=status, detail=detail, field=field
        )
        self.headers = headers

    def response(self) -> Response:
        return Response(
            msgspec.json.encode(self.problem),
            self.problem.status,
            headers=self.headers,
            media_type="application/problem+json",
        )


async def read(request: Request) -> bytes:
    """The request's body, of which no more than MAX_BODY bytes are ever held. Raises Refused (413) where it has more."""
    length = request.headers.get("content-length", "")
    chunks: list[bytes] = []
    size = int(length) if length.isdecimal() and len(length) < 20 else 0
    if size <= MAX_BODY:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_BODY:
                break
            chunks.append(chunk)
    if size > MAX_BODY:
        # What is still on its way is not read: the connection ends with the answer.
        raise Refused(413, f"the body has more than {MAX_BODY} bytes", headers={"connection": "close"})
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The body as its type. Raises Refused (400) that says what is wrong and names the field."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        said = str(error)
        at, named = _AT.search(said), _NAMED.search(said)
        field = (at.group(1) if at else "$") + (f".{named.group(1)}" if named else "")
        raise Refused(400, _AT.sub("", said), field=field) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
