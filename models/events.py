"""What may stand on the `clicks` topic: the event union, its codec and its errors.

Times are milliseconds since the epoch, UTC. Ids are strings of 1 to 256 bytes in UTF-8, not blank and without
control characters, since they are keys of records and stand in logs and addresses. Fields nobody knows are
ignored, so producers may add their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

import msgspec

VERSION = 1
"""The version of the event schema that this code writes; 1 where an event names none."""

RESERVED = "__"
"""Keys that begin so are ours on the output topics, so no user id may."""

Version = Annotated[int, msgspec.Meta(ge=1, le=1)]
"""Of any schema but the events': each has had one so far, and a later one is refused."""

VALUE_BYTES = 1 << 20
"""A value of more bytes is not looked into, so that no record costs more than some milliseconds."""

DEPTH = 250
"""How deep lists and objects may stand in each other. The decoder's own limit is what the stack has left, so without
this one the same record could be good in one process and bad in another."""

ID_BYTES = 256

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=ID_BYTES)]
EventId = Annotated[
    Id,
    msgspec.Meta(
        extra_json_schema={
            "pattern": r"^(?!\s*$)(?![\s\S]*[\x00-\x1f\x7f-\x9f])",
            "description": f"at most {ID_BYTES} bytes in UTF-8, not blank, no control characters",
        }
    ),
]
"""An id in an event. The decoder checks its length in characters, `decode` the rest."""
Timestamp = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
Position = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Money = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class EventError(ValueError):
    """A record that can't be applied. `reason` is the short name that dead letters carry."""

    reason = "invalid"


class Unreadable(EventError):
    """The bytes are not an event: not JSON, a field missing, of a wrong type or out of its range."""

    reason = "unreadable"


class Impossible(EventError):
    """An event from the future: more than five minutes after its own record's Kafka timestamp."""

    reason = "impossible"


class Late(EventError):
    """An event more than the grace behind its partition's watermark."""

    reason = "late"


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A listing shown in a search. `position` counts from 1, as shown; `caller_*` are from before re-ranking."""

    listing_id: EventId
    position: Position
    caller_position: Position | None = None
    caller_score: float | None = None
    price: Money | None = None


class Ranking(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which of our rankings the visitor saw, copied from the answer of `/v1/rank`."""

    rank_id: EventId
    bundle: EventId
    variant: str = ""
    propensity: float | None = None


class _Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    event_id: EventId
    timestamp: Timestamp
    version: Annotated[int, msgspec.Meta(ge=1, le=VERSION)] = VERSION


class _UserEvent(_Record, frozen=True, kw_only=True, omit_defaults=True):
    user_id: EventId


class _ListingEvent(_UserEvent, frozen=True, kw_only=True, omit_defaults=True):
    listing_id: EventId
    search_id: EventId | None = None
    market: EventId | None = None


class Search(_UserEvent, frozen=True, kw_only=True, omit_defaults=True, tag="search"):
    """A search and the listings it showed, in order. Clicks name it by `search_id` (its `event_id` where absent)."""

    results: Annotated[tuple[Result, ...], msgspec.Meta(max_length=1_000)]
    query: str | None = None
    market: EventId | None = None
    search_id: EventId | None = None
    ranking: Ranking | None = None


class Click(_ListingEvent, frozen=True, kw_only=True, omit_defaults=True, tag="click"):
    """The visitor opened the listing."""


class Leave(_UserEvent, frozen=True, kw_only=True, omit_defaults=True, tag="leave"):
    """The visitor left what the event `of` opened, after `seconds`. Where absent, derived from the next event."""

    of: EventId
    seconds: Annotated[float, msgspec.Meta(ge=0, le=86_400)]


class Wishlist(_ListingEvent, frozen=True, kw_only=True, omit_defaults=True, tag="wishlist"):
    """The visitor saved the listing."""


class Inquiry(_ListingEvent, frozen=True, kw_only=True, omit_defaults=True, tag="inquiry"):
    """The visitor contacted the host."""


class Booking(_ListingEvent, frozen=True, kw_only=True, omit_defaults=True, tag="booking"):
    """The visitor booked the listing."""


class Rejection(_ListingEvent, frozen=True, kw_only=True, omit_defaults=True, tag="rejection"):
    """The host said no."""


class Forget(_UserEvent, frozen=True, kw_only=True, omit_defaults=True, tag="forget"):
    """Erase this user: everything dated not later than this event."""


class Tick(_Record, frozen=True, kw_only=True, omit_defaults=True, tag="tick"):
    """Moves the watermark of a silent partition. Belongs to no user; its record has no key."""


UserEvent = Search | Click | Leave | Wishlist | Inquiry | Booking | Rejection | Forget
Event = UserEvent | Tick

_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_encoder = msgspec.json.Encoder()
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ESCAPE, _DELETE, _SPACE = b"\\\x7f "
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_IDS = ("event_id", "user_id", "listing_id", "search_id", "market", "of")


def decode(value: bytes | None, key: bytes | None) -> Event:
    """The event in a record of `clicks`.

    Raises Unreadable, saying what is wrong and where, unless `value` is one event in JSON and `key` is its
    user id in UTF-8 (a tick has no user, and its key is not looked at).
    """
    event = parse(value)
    if not isinstance(event, Tick) and key != event.user_id.encode():
        raise Unreadable("the record's key is not the event's user id - at `$.user_id`")
    return event


def parse(value: bytes | None) -> Event:
    """The event in a value, whatever key its record has. Raises Unreadable, saying what is wrong and where."""
    if value is None:
        raise Unreadable("the value is null")
    if len(value) > VALUE_BYTES:
        raise Unreadable(f"the value has {len(value):,} bytes, more than {VALUE_BYTES:,}")
    ascii_only = value.isascii()
    try:
        if not ascii_only:
            value.decode()  # The decoder does not look into fields nobody knows.
        if len(value) > 2 * DEPTH and value.count(b"[") + value.count(b"{") > DEPTH:
            _check_depth(value)
        event = _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(str(error)) from None
    # Within ASCII only escapes, DEL and a space after a quote can make an id bad: where there are none, none is.
    if not ascii_only or _ESCAPE in value or _DELETE in value or (_SPACE in value and b'" ' in value):
        for where, name in _ids(event):
            _check_id(where, name)
    if not isinstance(event, Tick) and event.user_id.startswith(RESERVED):
        raise Unreadable(f"user ids that begin with `{RESERVED}` are reserved - at `$.user_id`")
    return event


def _check_depth(value: bytes) -> None:
    outside_strings = value.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]
    depth = 0
    for bracket in b"".join(outside_strings).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEPTH:
            raise Unreadable(f"lists and objects stand more than {DEPTH} deep in each other")


def _ids(event: Event) -> Iterator[tuple[str, str]]:
    """Every id in an event, with its place."""
    for field in _IDS:
        name = getattr(event, field, None)
        if name is not None:
            yield f"$.{field}", name
    if isinstance(event, Search):
        for at, result in enumerate(event.results):
            yield f"$.results[{at}].listing_id", result.listing_id
        if event.ranking is not None:
            yield "$.ranking.rank_id", event.ranking.rank_id
            yield "$.ranking.bundle", event.ranking.bundle


def _check_id(where: str, name: str) -> None:
    if _CONTROL.search(name):
        raise Unreadable(f"an id with a control character - at `{where}`")
    if not name.strip():
        raise Unreadable(f"an id of nothing but space - at `{where}`")
    if len(name.encode()) > ID_BYTES:
        raise Unreadable(f"an id of more than {ID_BYTES} bytes in UTF-8 - at `{where}`")


def encode(event: Event) -> bytes:
    """The JSON bytes of an event, for the value of a record."""
    return _encoder.encode(event)
