"""What may stand on the `clicks` topic: the event union, its codec and its errors.

Times are milliseconds since the epoch, UTC. Ids are non-empty strings of at most 256 characters. Fields
nobody knows are ignored, so producers may add their own.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

VERSION = 1
"""The version of the event schema that this code writes; 1 where an event names none."""

RESERVED = "__"
"""Keys that begin so are ours on the output topics, so no user id may."""

Version = Annotated[int, msgspec.Meta(ge=1, le=1)]
"""Of any schema but the events': each has had one so far, and a later one is refused."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
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

    listing_id: Id
    position: Position
    caller_position: Position | None = None
    caller_score: float | None = None
    price: Money | None = None


class Ranking(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which of our rankings the visitor saw, copied from the answer of `/v1/rank`."""

    rank_id: Id
    bundle: Id
    variant: str = ""
    propensity: float | None = None


class _Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    event_id: Id
    timestamp: Timestamp
    version: Annotated[int, msgspec.Meta(ge=1, le=VERSION)] = VERSION


class _UserEvent(_Record, frozen=True, kw_only=True, omit_defaults=True):
    user_id: Id


class _ListingEvent(_UserEvent, frozen=True, kw_only=True, omit_defaults=True):
    listing_id: Id
    search_id: Id | None = None
    market: Id | None = None


class Search(_UserEvent, frozen=True, kw_only=True, omit_defaults=True, tag="search"):
    """A search and the listings it showed, in order. Clicks name it by `search_id` (its `event_id` where absent)."""

    results: Annotated[tuple[Result, ...], msgspec.Meta(max_length=1_000)]
    query: str | None = None
    market: Id | None = None
    search_id: Id | None = None
    ranking: Ranking | None = None


class Click(_ListingEvent, frozen=True, kw_only=True, omit_defaults=True, tag="click"):
    """The visitor opened the listing."""


class Leave(_UserEvent, frozen=True, kw_only=True, omit_defaults=True, tag="leave"):
    """The visitor left what the event `of` opened, after `seconds`. Where absent, derived from the next event."""

    of: Id
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


def decode(value: bytes | None, key: bytes | None) -> Event:
    """The event in a record of `clicks`.

    Raises Unreadable, saying what is wrong and where, unless `value` is one event in JSON and `key` is its
    user id in UTF-8 (a tick has no user, and its key is not looked at).
    """
    if value is None:
        raise Unreadable("the value is null")
    try:
        event = _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(str(error)) from None
    if isinstance(event, Tick):
        return event
    if event.user_id.startswith(RESERVED):
        raise Unreadable(f"user ids that begin with `{RESERVED}` are reserved - at `$.user_id`")
    try:
        user = event.user_id.encode()
    except UnicodeEncodeError:
        raise Unreadable("a user id with a lone surrogate - at `$.user_id`") from None
    if key != user:
        raise Unreadable("the record's key is not the event's user id - at `$.user_id`")
    return event


def encode(event: Event) -> bytes:
    """The JSON bytes of an event, for the value of a record."""
    return _encoder.encode(event)
