"""What Prometheus is told of a worker."""

from __future__ import annotations

from collections import Counter as Counts

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

STAGES = ("apply", "publish", "commit", "store")
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)
DEAD = ("unreadable", "impossible", "late")
"""What `Changes.counts` has that is not an event applied: dead letters by reason,"""
OTHER = ("duplicate", "forgotten", "opened", "closed", "dropped")
"""and what became of sessions and users."""


class Metrics:
    """A worker's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"insession_worker_{name}", says, labels, registry=registry)

        def gauge(name: str, says: str, *labels: str) -> Gauge:
            return Gauge(f"insession_worker_{name}", says, labels, registry=registry)

        self._events = counter("events_total", "Events that were not dead letters, duplicates too", "type")
        self._dead = counter("dead_letters_total", "Records that were not applied", "reason")
        self._duplicates = counter("duplicates_total", "Events that had been applied already")
        self._forgotten = counter("forgotten_total", "Events dropped because their user was forgotten")
        self._opened = counter("sessions_opened_total", "Sessions opened")
        self._closed = counter("sessions_closed_total", "Sessions closed")
        self._dropped = counter("users_dropped_total", "Users of whom nothing is kept any more")
        self._batch = Histogram(
            "insession_worker_batch_records", "Records in a batch", buckets=RECORDS, registry=registry
        )
        self._stages = Histogram(
            "insession_worker_stage_seconds",
            "Time of a batch's stages: apply to windows and encode, publish, commit, store",
            ("stage",),
            buckets=SECONDS,
            registry=registry,
        )
        self._stage = {stage: self._stages.labels(stage) for stage in STAGES}
        self.partitions = gauge("partitions", "Partitions held")
        self.lag = gauge("lag_records", "Offsets of clicks not yet applied", "partition")
        self.delay = gauge(
            "watermark_delay_seconds", "How far the watermark is behind the clock", "partition"
        )
        self.recovery = gauge("recovery_seconds", "How long the last taking over of partitions took")
        self.recomputed = counter(
            "vectors_recomputed_total", "Users whose vectors were brought to a new bundle"
        )
        self.bundle = gauge("bundle", "The bundle in use", "bundle")
        self.refused = counter("bundles_refused_total", "Bundles that could not be read, and were not taken")
        self.listings = gauge("listings_announced", "Announced listings with a vector from their neighbours")
        for reason in DEAD:
            self._dead.labels(reason)

    def applied(self, records: int, counts: Counts[str]) -> None:
        """Count a batch that has been committed."""
        if records:
            self._batch.observe(records)
        for name, count in counts.items():
            if name in DEAD:
                self._dead.labels(name).inc(count)
            elif name not in OTHER:
                self._events.labels(name).inc(count)
        self._duplicates.inc(counts["duplicate"])
        self._forgotten.inc(counts["forgotten"])
        self._opened.inc(counts["opened"])
        self._closed.inc(counts["closed"])
        self._dropped.inc(counts["dropped"])

    def took(self, stage: str, seconds: float) -> None:
        """Note how long a stage took."""
        self._stage[stage].observe(seconds)
