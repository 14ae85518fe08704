"""Who may ask: with a token set, those who send it."""

from __future__ import annotations

import hmac

from starlette.types import Scope

from serving.problems import Refused

OPEN = frozenset({"/healthz", "/readyz"})
"""Paths that need no token: an orchestrator has none."""


def check(scope: Scope, token: bytes) -> None:
    """Raise Refused (401) unless the request bears the token (RFC 6750)."""
    if scope["path"] in OPEN:
        return
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, given = value.partition(b" ")
            if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), token):
                return
    raise Refused(
        401,
        "send `Authorization: Bearer TOKEN` with the sidecar's token",
        headers={"www-authenticate": 'Bearer realm="insession"'},
    )
