"""What the sidecar asks a Kafka cluster: which topics it has, and where they end."""

from __future__ import annotations

from collections.abc import Mapping, Set
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType

from models.topics import DAY_MS, Topics

SECONDS = 3.0
"""How long the cluster may take to answer."""

Client = Mapping[str, str | int | float | bool]
"""What every Kafka client is told: `bootstrap.servers`, and security where there is any (librdkafka's names)."""


class Away(Exception):
    """The cluster does not answer as it should, or lacks a topic. The message is for a person."""


class Silent(Away):
    """Nobody answers."""


SILENT = (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE)


@dataclass(frozen=True, slots=True)
class Found:
    """The cluster, and the topics as it has them."""

    cluster: str
    ids: dict[str, str]
    partitions: dict[str, int]
    tombstones_ms: int
    """How long the topics keep tombstones."""
    places: list[tuple[str, int]]
    """The partitions to follow, with the names of their topics."""


class Asking:
    """A question under way, for the ends and ids of the topics: no thread waits for it."""

    def __init__(self, admin: AdminClient, found: Found, at: int) -> None:
        self._found = found
        self.at = at
        """When it was asked, ms."""
        self._topics = admin.describe_topics(TopicCollection(list(found.ids)), request_timeout=SECONDS)
        # The high watermark and not the last stable offset: asked for, that one lags behind commits on Kafka and
        # is 0 during a transaction on the embedded broker. A reader that has come to this end has all before it.
        self._ends = admin.list_offsets(
            {TopicPartition(*place): OffsetSpec.latest() for place in found.places},  # type: ignore[no-untyped-call]
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=SECONDS,
        )

    def done(self) -> bool:
        return all(future.done() for future in (*self._topics.values(), *self._ends.values()))

    def same(self) -> bool:
        """Whether the topics are those that were found, once done. Raises Away."""
        topics = {name: _result(future) for name, future in self._topics.items()}
        return all(
            str(topic.topic_id) == self._found.ids[name]
            and len(topic.partitions) == self._found.partitions[name]
            for name, topic in topics.items()
        )

    def ends(self) -> dict[tuple[str, int], int]:
        """The end of each partition, once done. Raises Away."""
        return {(tp.topic, tp.partition): _result(future).offset for tp, future in self._ends.items()}


def look(admin: AdminClient, of: Topics, held: Set[int] | None = None) -> Found:
    """The topics that are followed, of the users' only the partitions `held`, or all.

    The first one's setting says how long tombstones are kept. Raises Away.
    """
    names = (of.user_embeddings, of.user_histories, of.listings)
    cluster = str(_result(admin.describe_cluster(request_timeout=SECONDS)).cluster_id)
    described = admin.describe_topics(TopicCollection(list(names)), request_timeout=SECONDS)
    topics = {name: _topic(name, future, of) for name, future in described.items()}
    resource = ConfigResource(ResourceType.TOPIC, names[0])
    [configured] = admin.describe_configs([resource], request_timeout=SECONDS).values()
    entry = _result(configured).get("delete.retention.ms")
    partitions = {name: len(topic.partitions) for name, topic in topics.items()}
    for name in names[:2]:
        if held is not None and max(held) >= partitions[name]:
            raise Away(
                f"the topic {name} has the partitions 0 to {partitions[name] - 1}, not {max(held)}: "
                "give --hold others"
            )
    return Found(
        cluster=cluster,
        ids={name: str(topic.topic_id) for name, topic in topics.items()},
        partitions=partitions,
        tombstones_ms=int(entry.value) if entry is not None and entry.value else DAY_MS,
        places=[
            (name, number)
            for name, count in partitions.items()
            for number in range(count)
            if held is None or name == of.listings or number in held
        ],
    )


def _topic(name: str, future: Future[Any], of: Topics) -> Any:
    try:
        return _result(future)
    except Silent:
        raise
    except Away as error:
        raise Away(f"the topic {name}: {error}; `{of.making}` makes what is missing") from None


def _result(future: Future[Any]) -> Any:
    try:
        return future.result(SECONDS + 1)
    except KafkaException as error:
        silent = error.args[0].code() in SILENT
        raise (Silent if silent else Away)(error.args[0].str()) from None
    except TimeoutError:
        raise Silent("no answer in time") from None
