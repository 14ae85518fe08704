"""The orders every ranking must beat. Each gives indices into the candidates, best first."""

from __future__ import annotations

from collections.abc import Sequence

from models.rank import Candidate
from models.sessions import Action, Session


def shown(positions: Sequence[int]) -> list[int]:
    """The list as the visitor saw it: by position."""
    return sorted(range(len(positions)), key=positions.__getitem__)


def seen_first(
    candidates: Sequence[Candidate], positions: Sequence[int], session: Session | None
) -> list[int]:
    """What was acted on in the open session first, the most recent at the top; the rest as shown."""
    acted = acted_on(session)
    newest = {listing: age for age, listing in enumerate(reversed(acted))}
    age = [newest.get(candidate.listing_id, len(newest)) for candidate in candidates]
    return sorted(range(len(candidates)), key=lambda index: (age[index], positions[index]))


def acted_on(session: Session | None) -> list[str]:
    """The listings acted on in a session, each once, the most recent last."""
    if session is None:
        return []
    acted = [
        event.listing_id
        for event in session.events
        if isinstance(event, Action) and event.kind != "rejection"
    ]
    return list(dict.fromkeys(reversed(acted)))[::-1]
