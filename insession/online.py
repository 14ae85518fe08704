"""A recording through a broker, a worker and a sidecar that really run: every ranking must equal the offline one."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from insession.running import running
from insession.sidecar import Sidecar
from models import recording
from models.errors import UserError
from models.evaluation import rerank
from models.evaluation.rerank import Scored
from serving.api import RankRequest
from streams import topics
from streams.producing import send

DEADLINE_MS = 10_000


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A search that was ranked differently online."""

    search_id: str
    user_id: str
    offline: list[str]
    online: list[str]
    outcome: str
    """What the sidecar said became of it."""


class Producing:
    """Produces records one by one, and knows where each user's last one came to stand."""

    def __init__(self, client: topics.Client, topic: str) -> None:
        self._topic = topic
        self._producer = Producer({**client, "linger.ms": 0, "enable.idempotence": True, "log_level": 0})
        self._last: dict[bytes | None, tuple[int, int]] = {}

    def produce(self, number: int, record: recording.Record) -> None:
        """Put a record on partition `number`, with its own time."""
        send(
            self._producer,
            self._topic,
            key=record.key,
            value=record.value,
            headers=list(record.headers),
            partition=number,
            timestamp=record.timestamp,
            on_delivery=self._on_delivery,
        )

    def last(self, key: bytes) -> tuple[int, int] | None:
        """Partition and offset of the last record with this key, once the broker has all there are."""
        self._producer.flush()
        return self._last.get(key)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            raise UserError(f"the broker refused a record: {error.str()}")
        self._last[message.key()] = (message.partition() or 0, message.offset() or 0)


def compare(
    path: Path,
    bundle: Path,
    scored: Sequence[Scored],
    *,
    until: int | None = None,
    bootstrap: str | None = None,
    kafka_home: Path | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[Difference]:
    """Play a recording and ask for each scored search when all before it is applied; those that were ranked differently."""
    header, _ = recording.read(path)
    waiting = {one.choice.record: one for one in scored}
    differences = []
    with running(
        bundle,
        bootstrap=bootstrap,
        kafka_home=kafka_home,
        prefix=f"online-{secrets.token_hex(4)}-",
        partitions=header.partitions,
    ) as (client, names, sidecar):
        producing = Producing(client, names.clicks)
        for place, (number, record, event) in enumerate(rerank.records(path)):
            if event is not None and until is not None and event.timestamp >= until:
                continue
            one = waiting.pop(place, None)
            if one is not None:
                difference = _ask(sidecar, producing, one)
                if difference is not None:
                    differences.append(difference)
                on_progress(len(scored) - len(waiting))
            if not waiting:
                break
            producing.produce(number, record)
    return differences


def _ask(sidecar: Sidecar, producing: Producing, one: Scored) -> Difference | None:
    choice = one.choice
    search = choice.search
    last = producing.last(search.user_id.encode())
    answer = sidecar.rank(
        RankRequest(
            user_id=search.user_id,
            candidates=tuple(choice.candidates),
            timestamp=search.timestamp,
            partition=last[0] if last else None,
            min_offset=last[1] if last else None,
            deadline_ms=DEADLINE_MS,
        )
    )
    offline = [choice.candidates[index].listing_id for index in one.orders["insession"]]
    online = [result.listing_id for result in answer.results]
    if offline == online and one.outcome == answer.outcome:
        return None
    return Difference(
        search_id=search.search_id or search.event_id,
        user_id=search.user_id,
        offline=offline,
        online=online,
        outcome=answer.outcome,
    )
