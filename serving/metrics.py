"""What Prometheus is told."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from models.index import Measured

BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

FRESHNESS = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0)


class _Times:
    """Of one route and outcome: how many in each bucket, the last of which has no end, and all together."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0


class _Requests(Collector):
    """The library's own histogram is a tenth of what a small request costs: it is for any thread, bucket by bucket."""

    def __init__(self) -> None:
        self.times: dict[tuple[str, str], _Times] = {}

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(
            "insession_request_seconds",
            "Time from reading a request to its answer, waiting for min_offset included",
            labels=("route", "outcome"),
        )
        names = [*map(floatToGoString, BUCKETS), "+Inf"]
        for labels, times in self.times.items():
            family.add_metric(labels, list(zip(names, accumulate(times.counts), strict=True)), times.sum)
        yield family


class Metrics:
    """The sidecar's metrics, in a registry of their own."""

    def __init__(self, bundle: str, index: Measured | None = None) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = _Requests()
        registry.register(self._requests)
        self.outcomes = Counter(
            "insession_outcomes_total",
            "What became of the requests within batches",
            ("route", "outcome"),
            registry=registry,
        )
        self.unknown_listings = Counter(
            "insession_unknown_listings_total", "Candidates that the bundle did not know", registry=registry
        )
        self.stale = Counter(
            "insession_stale_answers_total",
            "Answers without the vector, of another bundle",
            registry=registry,
        )
        self.updates = Counter(
            "insession_updates_total", "Keys that records of a topic changed", ("topic",), registry=registry
        )
        self.unreadable = Counter(
            "insession_unreadable_total",
            "Records that could not be read; of users, once caught up",
            ("topic",),
            registry=registry,
        )
        self.resets = Counter(
            "insession_resets_total", "Times the states were begun from nothing", registry=registry
        )
        self.users = Gauge("insession_users", "Users with a state", registry=registry)
        self.remembered = Gauge(
            "insession_users_in_memory",
            "Users whose records are in memory: those of others are read from the store",
            registry=registry,
        )
        self.behind = Gauge(
            "insession_behind_offsets", "Offsets of the topics not yet read", registry=registry
        )
        self.age = Gauge(
            "insession_states_age_seconds",
            "Time since everything on the topics was last known to be read; NaN before the first time",
            registry=registry,
        )
        self.freshness = Histogram(
            "insession_freshness_seconds",
            "From a click's Kafka timestamp to answers that reflect it, of the oldest click of each transaction; from when the sidecar is caught up",
            buckets=FRESHNESS,
            registry=registry,
        )
        self.ready = Gauge("insession_ready", "1 where it is ready", registry=registry)
        self._recall = Gauge(
            "insession_index_recall",
            "Of the 100 listings nearest to a vector, the share that the index was measured to find when it was built: over all listings, and in the worst of the large markets and them",
            ("of",),
            registry=registry,
        )
        self.recomputed = Counter(
            "insession_vectors_recomputed_total",
            "Users whose vectors were brought to another bundle, at once and not one by one as they came",
            registry=registry,
        )
        self.refused = Counter(
            "insession_bundles_refused_total",
            "Bundles that could not be read, and were not taken",
            registry=registry,
        )
        self._bundle = Gauge("insession_bundle", "The bundle in use", ("bundle",), registry=registry)
        self.use(bundle, index)

    def use(self, bundle: str, index: Measured | None = None) -> None:
        """Say which bundle is in use, and how good its index is."""
        self._bundle.clear()
        self._bundle.labels(bundle).set(1)
        self._recall.labels("all").set(index.recall_at_100 if index else math.nan)
        self._recall.labels("worst").set(index.worst_recall_at_100 if index else math.nan)

    def observe(self, route: str, outcome: str, seconds: float) -> None:
        """Count an answer and its time; in the event loop alone."""
        times = self._requests.times.get((route, outcome))
        if times is None:
            times = self._requests.times[route, outcome] = _Times()
        times.counts[bisect_left(BUCKETS, seconds)] += 1
        times.sum += seconds

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)
