"""Watches which bundle is current: another one is loaded and tried beside the one in use, and handed to the follower."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from models import rank
from models.bundle import Bundle
from models.current import Current
from models.errors import UserError
from models.rank import Candidate
from models.sessions import Action, Session, State, UserEmbedding
from models.visitor import Visitor
from serving.follower import Status
from serving.metrics import Metrics

SECONDS = 1.0
"""Between two looks."""
TRIED = 10

log = logging.getLogger("insession.watch")


class Watch:
    """A thread that calls `take` with each new bundle. `start` and `stop` it."""

    def __init__(
        self, current: Current, take: Callable[[Bundle], object], status: Status, metrics: Metrics
    ) -> None:
        self._current = current
        self._take = take
        self._status = status
        self._metrics = metrics
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(SECONDS):
            self.look()

    def look(self) -> None:
        """Hand over the bundle that is current now, where it is another one than before and a good one."""
        before = self._current.refused
        try:
            new = self._current.look(tried)
        except Exception as error:  # nobody restarts this thread
            known = isinstance(error, UserError)
            log.error("the new bundle is refused, the old one stays: %s", error, exc_info=not known)
            self._metrics.refused.inc()
            self._status.refused = f"the bundle that is current is refused: {error if known else repr(error)}"
            return
        # What the follower refuses stays refused until another one comes.
        if new is not None or (before and not self._current.refused):
            self._status.refused = ""
        if new is not None:
            log.info("the bundle %s is loaded", new.name)
            self._take(new)


def tried(bundle: Bundle) -> None:
    """Read all of the bundle that requests will need, and rank with it. UserError where it is broken."""
    try:
        bundle.index  # noqa: B018 -- read now, not within the first request that needs it
        bundle.cold_start  # noqa: B018 -- here, and not in the follower's thread, which has more to do
        candidates = [Candidate(listing) for listing in bundle.space.ids[:TRIED]]
        if not candidates:
            return
        session = Session(0, (Action(0, "tried", "click", candidates[0].listing_id),))
        vector = bundle.encode(session)
        user = UserEmbedding(
            user_id="tried",
            vector=vector,
            bundle=bundle.name,
            as_of=0,
            partition=0,
            offset=0,
            state=State(sessions=(session,)),
        )
        rank.rank(bundle, Visitor.of(user), candidates, timestamp=0)
        if vector is not None:
            bundle.nearest(vector, TRIED)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{bundle.folder}: ranking with it fails: {error!r}") from None
