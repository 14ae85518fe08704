"""The topics on a broker: made as they must be, looked at, and refused where they differ."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from models.errors import UserError
from models.topics import DAY_MS, Topics

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
    """Something about a topic: whether it is as it must be, and what to do where it is not."""

    topic: str
    ok: bool
    says: str


def cluster_id(client: Client) -> str:
    """The id of the cluster. UserError where no broker answers."""
    admin = connect(client)
    try:
        return str(admin.describe_cluster(request_timeout=SECONDS).result().cluster_id)
    except KafkaException as error:
        raise unreachable(client, error) from None


def unreachable(client: Client, error: KafkaException) -> UserError:
    """The error for a broker that does not answer."""
    return UserError(
        f"no Kafka broker answers at {client['bootstrap.servers']} ({error.args[0].str()}); "
        "start one with `insession broker`, or name yours with --bootstrap or INSESSION_BOOTSTRAP, and where it "
        "demands encryption or a password, set INSESSION_SECURITY_PROTOCOL"
    )


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
        there = admin.list_topics(timeout=SECONDS).topics
        present = [name for name in names if name in there and there[name].error is None]
        if not present:
            return {}
        described = admin.describe_topics(TopicCollection(present), request_timeout=SECONDS)
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in present]
        configured = admin.describe_configs(resources, request_timeout=SECONDS)
        settings = {resource.name: future.result() for resource, future in configured.items()}
        return {
            name: Found(
                name=name,
                id=str(future.result().topic_id),
                partitions=len(future.result().partitions),
                settings={key: str(entry.value) for key, entry in settings[name].items()},
            )
            for name, future in described.items()
        }
    except KafkaException as error:
        raise unreachable(client, error) from None


def ensure(
    client: Client,
    topics: Topics,
    *,
    partitions: int = 4,
    replication: int = 1,
    retention_ms: int = 7 * DAY_MS,
) -> list[Finding]:
    """Make the topics that are missing, and look at those that are there.

    `retention_ms` (-1 keeps everything) is for the topics that are not compacted. UserError where a topic
    can't be made.
    """
    found = describe(client, topics.all)
    missing = [
        NewTopic(
            name,
            num_partitions=partitions,
            replication_factor=replication,
            config=topics.settings(name, retention_ms=retention_ms),
        )
        for name in topics.all
        if name not in found
    ]
    made = []
    if missing:
        admin = AdminClient({**client, "log_level": 0})
        for name, future in admin.create_topics(missing, operation_timeout=SECONDS).items():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].name() == "TOPIC_ALREADY_EXISTS":
                    continue
                raise UserError(f"the topic {name} can't be made: {error.args[0].str()}") from None
            made.append(Finding(topic=name, ok=True, says=f"made, {partitions} partitions"))
        # A broker may answer for a moment as if they were not there yet.
        until = time.monotonic() + SECONDS
        while len(describe(client, topics.all)) < len(topics.all) and time.monotonic() < until:
            time.sleep(0.05)
    return made + check(client, topics, found)


def check(client: Client, topics: Topics, found: dict[str, Found] | None = None) -> list[Finding]:
    """What is to be said of each topic."""
    there = describe(client, topics.all) if found is None else found
    findings = []
    clicks = there.get(topics.clicks)
    for name in topics.all:
        topic = there.get(name)
        if topic is None:
            if found is None:
                findings.append(
                    Finding(topic=name, ok=False, says="missing; make it with `insession topics`")
                )
            continue
        wrong = _wrong(topic, topics, clicks)
        findings.append(Finding(topic=name, ok=not wrong, says=wrong or f"{topic.partitions} partitions"))
    return findings


def _wrong(topic: Found, topics: Topics, clicks: Found | None) -> str:
    if topic.name in topics.outputs and clicks is not None and topic.partitions != clicks.partitions:
        return (
            f"has {topic.partitions} partitions and {topics.clicks} has {clicks.partitions}: they must be "
            "equal, and can't be changed while there are states; delete the output topics, or use a new "
            "prefix, and begin afresh"
        )
    for key, value in topics.settings(topic.name, retention_ms=-1).items():
        # Retention is the user's to choose, and a broker that does not tell a setting can't be asked of it.
        if key == "retention.ms" or key not in topic.settings:
            continue
        if topic.settings[key] != value:
            return (
                f"has {key}={topic.settings[key]}, must have {value}; set it with kafka-configs "
                f"--alter --topic {topic.name} --add-config {key}={value}"
            )
    return ""


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
    for finding in check(client, topics, found):
        if not finding.ok:
            raise UserError(f"the topic {finding.topic} {finding.says}")
    missing = [name for name in topics.all if name not in found]
    if missing:
        raise UserError(f"topics are missing ({', '.join(missing)}); make them with `insession topics`")
    return found


def retention(found: Found) -> int | None:
    """A topic's `retention.ms`, -1 for ever; None where the broker does not tell."""
    value = found.settings.get("retention.ms")
    return int(value) if value else None
