"""A sidecar as a client sees it."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from http.client import HTTPConnection
from urllib.parse import urlsplit

FAILURES = 3
"""After so many in a row a sidecar is left alone,"""
REST_SECONDS = 1.0
"""for so long; then one request tries it."""


def address(url: str) -> str:
    """The URL that routes are appended to. Raises ValueError where it is none, or says what a client could not use."""
    if not re.fullmatch(r"https?://[!-~]+", url, re.IGNORECASE):
        raise ValueError(f"a sidecar's address must be a http:// or https:// URL, in ASCII, not {url!r}")
    parts = urlsplit(url)
    if "@" in parts.netloc:  # which is not shown: it may be a password
        raise ValueError(
            "a sidecar's address can't have a user and a password in it; `token` is what a sidecar takes"
        )
    if not parts.netloc or "?" in url or "#" in url:
        raise ValueError(
            f"a sidecar's address must be http://HOST:PORT or http://HOST:PORT/PATH, not {url!r}"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


@dataclass(slots=True, eq=False)
class Sidecar:
    """A sidecar, its idle connections, and whether it is left alone."""

    url: str
    idle: deque[HTTPConnection] = field(default_factory=deque)
    failures: int = 0
    rests_until: float = 0.0

    @property
    def path(self) -> str:
        """What stands before the route."""
        return urlsplit(self.url).path

    def open(self, now: float) -> bool:
        """Whether to ask it; where its rest is over, only whoever asks first does."""
        if self.failures < FAILURES:
            return True
        if now < self.rests_until:
            return False
        self.rests_until = now + REST_SECONDS
        return True

    def failed(self, now: float) -> None:
        self.failures += 1
        self.rests_until = now + REST_SECONDS

    def answered(self) -> None:
        self.failures = 0
