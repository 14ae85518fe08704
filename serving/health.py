"""Whether the sidecar is ready, and how old its states are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from serving import api
from serving.follower import Status
from serving.metrics import Metrics
from serving.ranking import Ranking


@dataclass(slots=True)
class Health:
    """Looks at the follower's status and the bundle."""

    status: Status
    ranking: Ranking
    metrics: Metrics

    def readiness(self, now: int) -> api.Readiness:
        """Whether requests should be sent here, and why not. `now` is the clock, ms."""
        status = self.status
        reasons, notes = [], []
        if not (status.caught_up or status.warm):
            behind = f"{status.behind} offsets behind" if status.behind is not None else "reading the topics"
            reasons.append(status.problem or f"not caught up yet: {behind}")
        elif status.problem:
            age = f"; the states are {(now - status.seen) // 1000:,} s old" if status.seen is not None else ""
            notes.append(f"{status.problem}{age}")
        if status.store:
            notes.append(status.store)
        if status.refused:
            notes.append(status.refused)
        return api.Readiness(
            ready=not reasons,
            reasons=reasons,
            notes=notes,
            bundle=self.ranking.bundle.name,
            users=status.users,
            behind=status.behind,
            seen_ms_ago=max(0, now - status.seen) if status.seen is not None else None,
        )

    def measure(self, now: int) -> None:
        """Bring the gauges up to date."""
        answer = self.readiness(now)
        self.metrics.ready.set(answer.ready)
        self.metrics.users.set(answer.users)
        self.metrics.remembered.set(len(self.ranking.states.memory))
        self.metrics.behind.set(math.nan if answer.behind is None else answer.behind)
        age = answer.seen_ms_ago
        self.metrics.age.set(math.nan if age is None else age / 1000)
