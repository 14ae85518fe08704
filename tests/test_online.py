"""What the sidecar makes of the records that a worker publishes is what offline runs measure."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from zlib import crc32

import msgspec
import numpy as np

from models import rank
from models.datasets.marketplace import Marketplace
from models.events import Search, encode
from models.features import NAMES
from models.offline import Offline, placed
from models.partition import Changes
from models.rank import Candidate
from models.recording import Record, partition_of
from models.states import history_key, user_key
from models.training import pipeline
from serving import _lists, api
from serving.metrics import Metrics
from serving.ranking import Ranking
from serving.states import States
from tests.made import record

PARTITIONS = 2


def test_features_and_scores_online_are_those_offline(tmp_path: Path) -> None:
    visits = Marketplace(5, markets=2, listings=300).events(600)
    # Few visitors, who come again.
    events = [
        msgspec.structs.replace(event, user_id=f"u{crc32(event.user_id.encode()) % 60}") for event in visits
    ]  # type: ignore[union-attr]
    bundle = pipeline.train(record(tmp_path / "r.jsonl.zst", events))
    assert bundle.manifest.training.ranker == "learned"
    store: dict[bytes, bytes] = {}

    def publish(number: int, changes: Changes) -> None:
        for key_of, records in ((user_key, changes.embeddings), (history_key, changes.histories)):
            for user, value in records.items():
                if value is None:
                    store.pop(key_of(user), None)
                else:
                    store[key_of(user)] = value

    offline, online = Offline(bundle, publish), Ranking(bundle, States(store.get), Metrics(bundle.name))
    recorded = [
        Record(
            partition_of(event.user_id.encode(), PARTITIONS),
            None,
            event.timestamp,
            event.user_id.encode(),
            (),
            encode(event),
        )
        for event in events
    ]
    compared, past, middle = 0, 0, events[len(events) // 2].timestamp
    seen = np.zeros(len(NAMES), np.bool_)
    for event, one in zip(events, placed(recorded, PARTITIONS), strict=True):
        if isinstance(event, Search) and event.timestamp > middle and compared < 400:
            offline.flush()
            candidates = tuple(
                Candidate(result.listing_id, result.caller_score, result.price) for result in event.results
            )
            visitor = offline.partition(one.partition or 0).visitor(event.user_id)
            measured = rank.rank(bundle, visitor, candidates, timestamp=event.timestamp, explain=True)
            request = api.RankRequest(
                user_id=event.user_id,
                candidates=candidates,
                timestamp=event.timestamp,
                explain=True,
                deadline_ms=10_000,
            )
            asked = asyncio.run(online.rank(request, event.timestamp, time.perf_counter()))
            answer = msgspec.json.decode(msgspec.json.encode(asked), type=api.RankResponse)
            assert answer.outcome == measured.outcome
            results = answer.results
            assert [result.caller_position for result in results] == (measured.order + 1).tolist()
            if measured.scores is not None and measured.contributions is not None:
                compared += 1
                past += visitor is not None and visitor.history is not None
                for result, at in zip(results, measured.order.tolist(), strict=True):
                    assert result.score == measured.scores.item(at)
                    assert result.contributions is not None
                    assert list(result.contributions.values()) == measured.contributions[at].tolist()
                plain = _lists.asked(_plain(request))
                assert plain is not None
                short = online.rank_now(plain, event.timestamp, time.perf_counter())
                assert msgspec.json.encode(short.results) == _lists.answered(
                    rank.look_up(candidates, bundle), measured.order, measured.scores, len(candidates)
                )
                profile = rank.of(bundle, visitor, event.timestamp)  # type: ignore[arg-type]
                assert profile is not None
                values = rank.matrix(bundle, profile, rank.look_up(candidates, bundle))
                seen |= (values != values[:, :1]).any(axis=1) | (values[:, 0] > -1)
        offline.apply(one)
    assert compared > 200
    assert past > 100
    assert seen.sum() > 12  # nearly all features were at work


def _plain(request: api.RankRequest) -> bytes:
    """The request as it is asked without anything to explain."""
    return msgspec.json.encode(msgspec.structs.replace(request, explain=False))
