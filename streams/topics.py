"""The topics on a broker: made as they must be, looked at, and refused where they differ."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from models.errors import UserError, no_broker
from models.topics import PARTITIONS, RETENTION_MS, Topics

SECONDS = 10.0
REFUSALS = (KafkaError._AUTHENTICATION, KafkaError._SSL)

Client = Mapping[str, str | int | float | bool]
"""What every Kafka client is told: `bootstrap.servers`, and security where there is any (librdkafka's names)."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A topic as the broker has it."""

    name: str
    id: str
    partitions: int
    settings: dict[str, str]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a topic is like, whether that is as it must be, and what to do where it is not."""

    topic: str
    ok: bool
    says: str
    todo: str = ""


def cluster_id(client: Client) -> str:
    """The id of the cluster. UserError where no broker answers."""
    admin = connect(client)
    try:
        return str(admin.describe_cluster(request_timeout=SECONDS).result().cluster_id)
    except KafkaException as error:
        raise unreachable(client, error) from None


class Unreachable(UserError):
    """No broker answers: nobody's mistake, and worth another try."""


def unreachable(client: Client, error: KafkaException) -> Unreachable:
    """The error for a broker that does not answer."""
    return Unreachable(no_broker(client["bootstrap.servers"], error.args[0].str()))


def connect(client: Client) -> AdminClient:
    """A client to ask brokers with, once one has answered. UserError where none does, or it refuses who we are."""
    said: list[KafkaError] = []
    settings: dict[str, Any] = {**client, "log_level": 0, "error_cb": said.append}
    admin = AdminClient(settings)
    for seconds in (0.5, 1, 2, SECONDS):
        try:
            admin.list_topics(timeout=seconds)
            return admin
        except KafkaException as error:
            admin.poll(0)
            # By itself the library tries again for ever, and tells no more than that nobody answered.
            for refusal in said:
                if refusal.code() in REFUSALS or "SSL alert" in refusal.str():
                    raise refused(client, refusal) from None
            problem = unreachable(client, error)
    raise problem


def refused(client: Client, error: KafkaError) -> UserError:
    """The error for a broker that does not let us in, or that we don't trust."""
    who = f" the user {client['sasl.username']}" if "sasl.username" in client else ""
    return UserError(
        f"the Kafka broker at {client['bootstrap.servers']} and{who or ' we'} do not come together: "
        f"{' '.join(error.str().split())}; look at INSESSION_SECURITY_PROTOCOL, INSESSION_SASL_* and INSESSION_SSL_*"
    )


def describe(client: Client, names: tuple[str, ...]) -> dict[str, Found]:
    """Those of the topics that exist. UserError where no broker answers."""
    admin = connect(client)
    try:
        # Futures throughout: Ctrl-C ends waiting for them, and does not end waiting inside the library.
        asked = admin.describe_topics(TopicCollection(list(names)), request_timeout=SECONDS)
        described = {name: topic for name, future in asked.items() if (topic := _present(future))}
        if not described:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in described]
        configured = admin.describe_configs(resources, request_timeout=SECONDS)
        settings = {resource.name: future.result() for resource, future in configured.items()}
        return {
            name: Found(
                name=name,
                id=str(topic.topic_id),
                partitions=len(topic.partitions),
                settings={key: str(entry.value) for key, entry in settings[name].items()},
            )
            for name, topic in described.items()
        }
    except KafkaException as error:
        raise unreachable(client, error) from None


def _present(future: Future[Any]) -> Any | None:
    """The topic's description; None where the broker has none for us. Raises KafkaException where no broker answers."""
    try:
        return future.result()
    except KafkaException as error:
        if error.args[0].code() < 0:  # the library's own; the brokers' are positive
            raise
        return None


def ensure(
    client: Client,
    topics: Topics,
    *,
    partitions: int | None = None,
    replication: int = 1,
    retention_ms: int | None = None,
) -> list[Finding]:
    """Make the topics that are missing, and look at all of them.

    What is None is not asked for: topics that are made get PARTITIONS and RETENTION_MS, and others may have any.
    `retention_ms` (-1 keeps everything) is for the topics that are not compacted. UserError where a topic can't be
    made.
    """
    found = describe(client, topics.all)
    missing = [
        NewTopic(
            name,
            num_partitions=partitions or PARTITIONS,
            replication_factor=replication,
            config=topics.settings(name, retention_ms=retention_ms or RETENTION_MS),
        )
        for name in topics.all
        if name not in found
    ]
    if missing:
        admin = AdminClient({**client, "log_level": 0})
        for name, future in admin.create_topics(missing, operation_timeout=SECONDS).items():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                    raise UserError(f"the topic {name} can't be made: {error.args[0].str()}") from None
        deadline = time.monotonic() + SECONDS
        # A broker may know of a new topic a moment after the one that made it.
        while len(found) < len(topics.all) and time.monotonic() < deadline:
            found = describe(client, topics.all)
    return check(found, topics, partitions=partitions, retention_ms=retention_ms)


def check(
    found: Mapping[str, Found],
    topics: Topics,
    *,
    partitions: int | None = None,
    retention_ms: int | None = None,
) -> list[Finding]:
    """What is to be said of each topic, of which those in `found` exist. What is None may be anything."""
    findings = []
    for name in topics.all:
        topic = found.get(name)
        if topic is None:
            findings.append(
                Finding(topic=name, ok=False, says="is missing", todo=f"make it with `{topics.making}`")
            )
            continue
        wrong = None
        if name != topics.listings:
            wrong = _partitions(topic, topics, found.get(topics.clicks), partitions)
        wrong = wrong or _setting(topic, topics.settings(name, retention_ms=retention_ms or -1), retention_ms)
        findings.append(wrong or Finding(topic=name, ok=True, says=f"has {topic.partitions} partitions"))
    return findings


def _partitions(topic: Found, topics: Topics, clicks: Found | None, asked: int | None) -> Finding | None:
    """What is wrong with the number of partitions of `clicks` or an output."""
    if clicks is not None and topic.partitions != clicks.partitions:
        says = f"and {topics.clicks} has {clicks.partitions}: they must be equal"
        which = "the output topics"
    elif asked is not None and topic.partitions != asked:
        says, which = f"not the {asked} asked for", "the topics"
    else:
        return None
    return Finding(
        topic=topic.name,
        ok=False,
        says=f"has {topic.partitions} partitions, {says}",
        todo=f"they can't be changed while there are states: delete {which}, or use another --topic-prefix, and "
        "begin afresh",
    )


def _setting(topic: Found, settings: Mapping[str, str], retention_ms: int | None) -> Finding | None:
    """What is wrong with the topic's settings."""
    for key, value in settings.items():
        # Retention is the user's to choose, and a broker that does not tell a setting can't be asked of it.
        if (key == "retention.ms" and retention_ms is None) or key not in topic.settings:
            continue
        if topic.settings[key] != value:
            return Finding(
                topic=topic.name,
                ok=False,
                says=f"has {key}={topic.settings[key]}, must have {value}",
                todo=f"set it with kafka-configs --alter --topic {topic.name} --add-config {key}={value}",
            )
    return None


def delete(client: Client, topics: Topics) -> None:
    """Delete the topics that are there, as after a trial run. UserError where the broker refuses."""
    admin = AdminClient({**client, "log_level": 0})
    for name, future in admin.delete_topics(
        list(describe(client, topics.all)), operation_timeout=SECONDS
    ).items():
        try:
            future.result()
        except KafkaException as error:
            raise UserError(f"the topic {name} can't be deleted: {error.args[0].str()}") from None


def require(client: Client, topics: Topics) -> dict[str, Found]:
    """The topics, all there and as they must be. UserError that says what is wrong and what to do."""
    found = describe(client, topics.all)
    for finding in check(found, topics):
        if not finding.ok:
            raise UserError(f"the topic {finding.topic} {finding.says}; {finding.todo}")
    return found


def retention(found: Found) -> int | None:
    """A topic's `retention.ms`, -1 for ever; None where the broker does not tell."""
    value = found.settings.get("retention.ms")
    return int(value) if value else None
