"""The HTTP API's contract: what a request may say and what an answer says.

Times are milliseconds since the epoch, UTC. A field of a request that nobody knows is refused, so that a misspelt
`min_offset` can't be overlooked; a candidate may carry fields of its own.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from models.events import Id, Timestamp
from models.rank import Candidate
from models.rank import Outcome as Ranking

Outcome = Ranking | Literal["no-vector", "deadline", "unreadable-state", "failed", "held-out", "not-held"]
"""What became of a request.

ranked: by the visitor's session, or by what they did in two weeks where none is open. unknown-user: nothing is known
of them. no-session: neither has anything to rank by. no-known-candidates: the bundle knows none of the listings.
no-vector: nothing to retrieve by, as nothing the bundle knows was clicked, or the vector is of another bundle.
deadline: it passed before `min_offset` was reached or the work was done. unreadable-state: the state is of a version
this program does not read, or damaged. failed: the model failed. held-out: the user's variant is the caller's own
order.
not-held: within a batch, the user's partition is another sidecar's. In all but the first the candidates come back in
the caller's order.
"""

MAX_CANDIDATES = 1_000
MAX_REQUESTS = 100
"""In one batch,"""
MAX_BATCH_CANDIDATES = 20_000
"""and all their candidates."""
MAX_K = 250
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Partition = Annotated[int, msgspec.Meta(ge=0, lt=10_000)]
Deadline = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
K = Annotated[int, msgspec.Meta(ge=1, le=MAX_K)]
Extend = Annotated[int, msgspec.Meta(ge=0, le=MAX_K)]
Diversity = Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    user_id: Id
    timestamp: Timestamp | None = None
    """The moment to answer for; now where absent."""
    min_offset: Offset | None = None
    """The offset on `clicks` of an event of this user that the answer must include,"""
    partition: Partition | None = None
    """and its partition; where absent, the one of the user's state, or else that of the user id by Kafka's default."""
    deadline_ms: Deadline = 50
    """How long the answer may take, waiting for `min_offset` included."""
    explain: bool = False
    """Say what each feature adds to each score."""
    market: Id | None = None
    """Retrieve only in this market."""


class RankRequest(_Request, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Candidates in the caller's order, each listing once."""

    candidates: Annotated[tuple[Candidate, ...], msgspec.Meta(max_length=MAX_CANDIDATES)]
    extend: Extend = 0
    """So many retrieved listings are added to the caller's before ranking: behind them, as far as it counts."""
    diversity: Diversity = 0.0
    """How much being unlike what stands above counts against the score, on the first 50 places."""


class BatchRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Several lists, at most 20,000 candidates in all."""

    requests: Annotated[tuple[RankRequest, ...], msgspec.Meta(max_length=MAX_REQUESTS)]


class RecommendRequest(_Request, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Asks for `k` listings that go with the visitor's session."""

    k: K = 10
    exclude_seen: bool = False
    """Leave out what was clicked or otherwise acted on in the visitor's open sessions."""


class SimilarRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The listing, and the parameters."""

    listing_id: Id
    k: K = 10
    market: Id | None = None
    """Only in this market."""
    user_id: Id | None = None
    """Rank them for this visitor,"""
    exclude_seen: bool = False
    """and leave out what was acted on in their open sessions."""


class UserState(msgspec.Struct, frozen=True, kw_only=True):
    """The state an answer was made from."""

    partition: int
    offset: int
    """Of the user's own last applied event on `clicks`."""
    as_of: int
    """The timestamp of the user's newest event."""
    age_ms: int
    """From `as_of` to the moment answered for."""


class RankedListing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A candidate in its new place. Positions count from 1."""

    listing_id: str
    position: int
    caller_position: int | None = None
    """Absent where the caller did not name the listing."""
    score: float | None = None
    """Higher is better, comparable within the answer; absent where not ranked."""
    known: bool = True
    """False where the bundle does not know the listing: it kept its place."""
    retrieved: bool = False
    """It was added by `extend`."""
    contributions: dict[str, float] | None = None
    """What each feature adds to the score, where asked for."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    rank_id: str
    """Names this ranking: put it, `bundle`, `variant` and `propensity` into the next `search` event's `ranking`."""
    bundle: str
    variant: str
    """The user's variant: `default` where the sidecar has no other,"""
    propensity: float
    """and the share of users who have it."""
    outcome: Outcome
    state: UserState | None
    """None where the user is unknown."""
    stale: bool
    """The state's vector is of another bundle, and was not used."""
    took_ms: float


class RankResponse(_Answer, frozen=True, kw_only=True):
    """All candidates, best first."""

    results: list[RankedListing]


class BatchResponse(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to each request, in their order."""

    answers: list[RankResponse]
    took_ms: float


class Recommended(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A retrieved listing."""

    listing_id: str
    position: int
    similarity: float
    """Of the listing's vector and the session's: their dot product."""
    score: float
    contributions: dict[str, float] | None = None


class RecommendResponse(_Answer, frozen=True, kw_only=True):
    """Retrieved listings, best first; none unless ranked."""

    results: list[Recommended]


class Similar(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A listing near the one asked for."""

    listing_id: str
    position: int
    similarity: float
    score: float | None = None
    """Where it was ranked for a visitor."""


class SimilarResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Near listings, nearest first, or as ranked for the visitor who is named; none where the listing has no vector."""

    listing_id: str
    bundle: str
    outcome: Outcome | Literal["nearest"]
    """nearest: no visitor was named. Where one was, the rest says of the ranking what `RankResponse` does."""
    results: list[Similar]
    took_ms: float
    rank_id: str | None = None
    variant: str | None = None
    propensity: float | None = None
    state: UserState | None = None
    stale: bool = False


class Partitions(msgspec.Struct, frozen=True, kw_only=True):
    """Which users' states are here."""

    partitions: int
    """How many `clicks` has; 0 while that is not known."""
    held: list[int]
    """Those followed here."""
    peers: dict[str, list[int]]
    """Who holds others, by address, as far as this sidecar was told."""
    how: str = "murmur2(user_id in UTF-8, seed 0x9747b28c) & 0x7fffffff % partitions"
    """Where a user is found: the partition of their events on `clicks`, which is this where Kafka's default put them."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event of an open session: something done to a listing, a search with what it showed first, or a leave."""

    type: Literal["click", "wishlist", "inquiry", "booking", "rejection", "search", "leave"]
    timestamp: int
    event_id: str
    listing_id: str | None = None
    market: str | None = None
    search_id: str | None = None
    results: list[str] | None = None
    of: str | None = None
    seconds: float | None = None


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """An open session: `first` and `last` are the timestamps of its ends."""

    first: int
    last: int
    active: bool
    """Its last event is at most 30 minutes before now."""
    events: list[Event]


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """How far the user's partition of `clicks` has been applied in what this sidecar has."""

    next_offset: int
    watermark: int


class UserResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a user."""

    user_id: str
    vector: tuple[float, ...] | None
    bundle: str
    """The bundle whose space `vector` is in."""
    state: UserState
    applied: Applied | None
    sessions: list[Visit]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process is up."""

    status: Literal["up"] = "up"


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Ready once all that stood on the topics when it started has been read, or was once, where no broker answers; it
    stays so when a broker goes away."""

    ready: bool
    reasons: list[str]
    """Why it is not ready,"""
    notes: list[str]
    """or what is wrong though it is."""
    bundle: str
    users: int
    behind: int | None
    """Offsets not yet read, at the last look at the topics; None before the first."""
    seen_ms_ago: int | None
    """When it was last known to have read everything; None before the first time."""


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error (RFC 9457), as application/problem+json."""

    type: str
    title: str
    status: int
    detail: str = ""
    field: str | None = None
    """The part of the request that is wrong: `$.candidates[3].listing_id` in its body, or a parameter's name."""
    partition: int | None = None
    """The user's, where another sidecar holds it."""
