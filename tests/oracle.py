"""The oracle: a partition's records one by one over plain lists, sorted and split at the gaps anew each time. Slow, and obviously right."""

from __future__ import annotations

from dataclasses import dataclass, field

from models.events import EventError, Forget, Leave, Search, Tick, decode

MINUTE = 60_000
GAP, GRACE, AHEAD, HISTORY = 30 * MINUTE, 10 * MINUTE, 5 * MINUTE, 14 * 24 * 60 * MINUTE
EVENTS = 100


@dataclass
class User:
    """All events of the open sessions ever applied, and what came of closed ones."""

    events: list = field(default_factory=list)
    last: int = 0
    mark: int | None = None
    alive: bool = True


@dataclass
class Oracle:
    watermark: int = 0
    users: dict[str, User] = field(default_factory=dict)
    closed: list[tuple] = field(default_factory=list)
    dead: list[tuple[int, str]] = field(default_factory=list)

    def apply(self, offset: int, timestamp: int, key: bytes | None, value: bytes | None) -> None:
        try:
            event = decode(value, key)
        except EventError:
            self.dead.append((offset, "unreadable"))
            return
        if event.timestamp > timestamp + AHEAD:
            self.dead.append((offset, "impossible"))
            return
        if event.timestamp < self.watermark - GRACE and not isinstance(event, Forget):
            self.dead.append((offset, "late"))
            return
        if not isinstance(event, Tick):
            user = self.users.setdefault(event.user_id, User())
            if isinstance(event, Forget):
                user.events = [e for e in user.events if e.timestamp > event.timestamp]
                user.mark = max(user.mark or 0, event.timestamp)
                user.last = user.last if user.last > event.timestamp else event.timestamp - HISTORY
            elif user.mark is not None and event.timestamp <= user.mark:
                pass
            elif event.event_id not in {e.event_id for s in self.sessions(user) for e in s[-EVENTS:]}:
                user.events.append(event)
                user.last = max(user.last, event.timestamp)
        self.watermark = max(self.watermark, min(event.timestamp, timestamp))
        for name in list(self.users):
            self.close(name)

    def sessions(self, user: User) -> list[list]:
        """Sort, and split at the gaps."""
        sessions: list[list] = []
        for event in sorted(user.events, key=lambda e: (e.timestamp, e.event_id)):
            if not sessions or event.timestamp - sessions[-1][-1].timestamp > GAP:
                sessions.append([])
            sessions[-1].append(event)
        return sessions

    def close(self, name: str) -> None:
        user = self.users[name]
        for session in self.sessions(user):
            if session[-1].timestamp + GAP + GRACE < self.watermark:
                kept = [brief(e) for e in session[-EVENTS:]]
                self.closed.append((name, session[0].timestamp, session[-1].timestamp, kept))
                user.events = [e for e in user.events if e not in session]
        if user.mark is not None and user.mark + GRACE < self.watermark:
            user.mark = None
        if not user.events and user.mark is None and user.last + HISTORY + GRACE < self.watermark:
            del self.users[name]

    def open(self) -> dict[str, list]:
        """What is open of each user: first timestamp and kept events of each session."""
        return {
            name: [(s[0].timestamp, [brief(e) for e in s[-EVENTS:]]) for s in self.sessions(user)]
            for name, user in self.users.items()
        }


def brief(event: object) -> tuple:
    """What identifies an event in a session."""
    if isinstance(event, Leave):
        return (event.timestamp, event.event_id, "leave", event.of)
    if isinstance(event, Search):
        return (event.timestamp, event.event_id, "search", None)
    return (event.timestamp, event.event_id, type(event).__name__.lower(), event.listing_id)
