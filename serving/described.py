"""A user as the API describes them."""

from __future__ import annotations

from models.sessions import WINDOWS, Action, Kept, Left, Session, Shown, UserEmbedding
from models.states import Checkpoint
from models.visitor import Visitor
from serving import api


def state(visitor: Visitor | None, timestamp: int) -> api.UserState | None:
    """The state that an answer for `timestamp` (ms) is made from."""
    if visitor is None:
        return None
    known = visitor.known
    return api.UserState(
        partition=known.partition,
        offset=known.offset,
        as_of=known.as_of,
        age_ms=max(0, timestamp - known.as_of),
    )


def user(record: UserEmbedding, applied: Checkpoint | None, now: int) -> api.UserResponse:
    """What is known of a user, whose partition is `applied` so far; `now` in ms."""
    return api.UserResponse(
        user_id=record.user_id,
        vector=record.vector,
        bundle=record.bundle,
        state=api.UserState(
            partition=record.partition,
            offset=record.offset,
            as_of=record.as_of,
            age_ms=max(0, now - record.as_of),
        ),
        applied=api.Applied(next_offset=applied.next_offset, watermark=applied.watermark)
        if applied
        else None,
        sessions=[_visit(session, now) for session in record.state.sessions],
    )


def _visit(session: Session, now: int) -> api.Visit:
    return api.Visit(
        first=session.first,
        last=session.last,
        active=session.last >= now - WINDOWS.gap,
        events=[_event(event) for event in session.events],
    )


def _event(event: Kept) -> api.Event:
    match event:
        case Action():
            return api.Event(
                type=event.kind,
                timestamp=event.timestamp,
                event_id=event.event_id,
                listing_id=event.listing_id,
                market=event.market,
                search_id=event.search_id,
            )
        case Shown():
            return api.Event(
                type="search",
                timestamp=event.timestamp,
                event_id=event.event_id,
                search_id=event.search_id,
                market=event.market,
                results=list(event.results),
            )
        case Left():
            return api.Event(
                type="leave",
                timestamp=event.timestamp,
                event_id=event.event_id,
                of=event.of,
                seconds=event.seconds,
            )
