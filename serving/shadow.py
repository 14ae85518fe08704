"""A second bundle that ranks too, after the answer, and how its rankings differ. No answer waits for it or changes by it."""

from __future__ import annotations

import logging
import queue
import random
import threading

import msgspec
import numpy as np
import numpy.typing as npt
from prometheus_client import Counter, Histogram

from models import rank
from models.bundle import Bundle
from models.rank import Candidates
from models.visitor import Visitor
from serving.metrics import Metrics

WAITING = 64
"""Rankings that wait to be compared; more are dropped."""
FIRST = 10

log = logging.getLogger("insession.shadow")

Rows = npt.NDArray[np.int64]
_Offered = tuple[Visitor, Candidates, int, Rows]


class Shadow:
    """A thread that ranks with `bundle` what was ranked already, for a share of the requests. `start` and `stop` it."""

    def __init__(self, bundle: Bundle, share: float, metrics: Metrics) -> None:
        self.bundle = bundle
        self._share = share
        self._queue: queue.Queue[_Offered | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        rankings = Counter(
            "insession_shadow_rankings_total",
            "Rankings that were to be made with the shadow's bundle too, by what became of it",
            ("outcome",),
            registry=metrics.registry,
        )
        self._compared, self._dropped, self._failed = map(rankings.labels, ("compared", "dropped", "failed"))
        self._first = Counter(
            "insession_shadow_same_first_total",
            "Compared rankings with the same listing in the first place",
            registry=metrics.registry,
        )
        self._overlap = Histogram(
            "insession_shadow_overlap",
            "How many of the first 10 are among the shadow's first 10, as a share",
            buckets=[tenth / 10 for tenth in range(11)],
            registry=metrics.registry,
        )
        self._tau = Histogram(
            "insession_shadow_kendall_tau",
            "Kendall's tau of the two orders: 1 where they are equal, -1 where one is the other's reverse",
            buckets=[fifth / 5 for fifth in range(-5, 5)] + [0.9, 1.0],
            registry=metrics.registry,
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what waits is not compared."""
        with self._queue.mutex:
            self._queue.queue.clear()
        self._queue.put(None)
        self._thread.join()

    def chosen(self) -> bool:
        """Whether the next ranking is one of the share to be compared."""
        return random.random() < self._share

    def offer(self, visitor: Visitor, candidates: Candidates, timestamp: int, order: Rows) -> None:
        """Compare, some time, the `order` that candidates were answered in (their indices, best first). Never waits."""
        try:
            self._queue.put_nowait((visitor, candidates, timestamp, order))
        except queue.Full:
            self._dropped.inc()

    def _run(self) -> None:
        while (offered := self._queue.get()) is not None:
            try:
                self._compare(*offered)
            except Exception:
                self._failed.inc()
                log.exception("ranking with the shadow's bundle failed")

    def _compare(self, visitor: Visitor, candidates: Candidates, timestamp: int, order: Rows) -> None:
        record = visitor.embedding
        sessions = record.state.sessions
        vector = self.bundle.encode(sessions[-1] if sessions else None)
        own = msgspec.structs.replace(record, vector=vector, bundle=self.bundle.name)
        ranked = rank.rank(
            self.bundle,
            visitor.replaced(own),
            rank.look_up(candidates, self.bundle),
            timestamp=timestamp,
        )
        ours, theirs = order, ranked.order
        self._first.inc(bool(ours[0] == theirs[0]))
        first = min(FIRST, len(ours))
        self._overlap.observe(len(np.intersect1d(ours[:first], theirs[:first])) / first)
        self._tau.observe(kendall(ours, theirs))
        self._compared.inc()


def kendall(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> float:
    """Kendall's tau of two orders of the same n things, each [n]; 1 where there are fewer than two."""
    n = len(one)
    if n < 2:
        return 1.0
    place = np.empty(n, np.int32)
    place[other] = np.arange(n)
    places = place[one]
    # Pairs that stand the other way round: above the diagonal, where the later of `one` is before in `other`.
    against = np.count_nonzero(np.triu(places[:, None] > places, 1))
    return float(1 - 4 * against / (n * (n - 1)))
