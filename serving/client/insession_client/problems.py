"""What a sidecar does not take."""

from __future__ import annotations

import msgspec

OURS = "urn:insession:problem:"
"""What a sidecar's problems are named with, and nobody else's."""
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What is raised of a body that is not as it must be; msgspec lets a UnicodeDecodeError through."""


class Problem(msgspec.Struct, kw_only=True):
    """As it comes over the wire."""

    status: int
    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    field: str | None = None
    partition: int | None = None


class Refused(Exception):
    """The sidecar did not take the request: it must be changed, as `detail` and `field` say."""

    def __init__(self, problem: Problem) -> None:
        where = f" at {problem.field}" if problem.field else ""
        super().__init__(f"{problem.status}: {problem.detail or problem.title}{where}")
        self.status = problem.status
        self.type = problem.type
        self.detail = problem.detail
        self.field = problem.field


# Made here and not where it is first used: msgspec crashes where two threads are the first to use a type.
_decode = msgspec.json.Decoder(Problem).decode


def read(body: bytes) -> Problem | None:
    """A sidecar's problem; None where the body is something else."""
    try:
        problem = _decode(body)
    except UNREADABLE:
        return None
    return problem if problem.type.startswith(OURS) else None


def of_the_request(status: int, problem: Problem) -> bool:
    """Whether the request itself is wrong, and not the token or the address."""
    return status in (400, 413, 422, 431) or (status == 404 and problem.field is not None)
