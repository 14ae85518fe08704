"""click_to_rank: from producing a click to a ranking that includes it, in ms, at 1,000 other clicks a second."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from confluent_kafka import Producer

from insession.online import Producing
from insession.running import running
from models import bundle
from models.events import Click, encode
from models.rank import Candidate
from models.recording import Record, partition_of
from models.topics import Topics
from serving.api import RankRequest
from streams.topics import Client
from tests.benchmarks.result import Result
from tests.made import a_bundle

SECONDS, RATE, PARTITIONS = 10.0, 1_000, 4


def run() -> list[Result]:
    home = os.environ.get("KAFKA_HOME")
    with TemporaryDirectory() as name:
        folder = Path(name)
        bundle.write(folder, a_bundle(5_000, 32))
        place = running(folder, kafka_home=Path(home) if home else None, partitions=PARTITIONS)
        with place as (client, names, sidecar):
            ending = threading.Event()
            load = threading.Thread(target=_load, args=(client, names, ending))
            load.start()
            time.sleep(2)
            producing = Producing(client, names.clicks)
            candidates = tuple(Candidate(f"l{number}") for number in range(200))
            waited = []
            until = time.monotonic() + SECONDS
            while time.monotonic() < until:
                number = len(waited)
                user = f"asked{number % 50}"
                now = int(time.time() * 1000)
                event = Click(event_id=f"a{number}", user_id=user, timestamp=now, listing_id="l3")
                partition = partition_of(user.encode(), PARTITIONS)
                started = time.perf_counter()
                producing.produce(partition, Record(partition, None, now, user.encode(), (), encode(event)))
                last = producing.last(user.encode())
                assert last is not None
                request = RankRequest(
                    user_id=user,
                    candidates=candidates,
                    min_offset=last[1],
                    partition=partition,
                    deadline_ms=10_000,
                )
                assert sidecar.rank(request).outcome == "ranked"
                waited.append((time.perf_counter() - started) * 1000)
                time.sleep(0.02)
            ending.set()
            load.join()
    return [
        Result(name=f"click_to_rank_p{percent}", value=float(np.percentile(waited, percent)), unit="ms")
        for percent in (50, 99)
    ]


def _load(client: Client, names: Topics, ending: threading.Event) -> None:
    producer = Producer({**client, "linger.ms": 1, "log_level": 0})
    started, sent = time.monotonic(), 0
    while not ending.is_set():
        while sent < (time.monotonic() - started) * RATE:
            user, now = f"u{sent * 7919 % 5000}", int(time.time() * 1000)
            event = Click(event_id=str(sent), user_id=user, timestamp=now, listing_id=f"l{sent * 31 % 5000}")
            number = partition_of(user.encode(), PARTITIONS)
            producer.produce(names.clicks, key=user, value=encode(event), partition=number, timestamp=now)
            sent += 1
        producer.poll(0.002)
    producer.flush(5)
