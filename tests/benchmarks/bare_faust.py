"""Bare Faust: takes events in batches and does nothing with them. Prints the seconds from the first to the last."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from typing import Any

import faust

servers, topic, events = sys.argv[1], sys.argv[2], int(sys.argv[3])
app = faust.App(
    id="bare",
    broker=f"kafka://{servers}",
    broker_max_poll_records=1_000,
    consumer_max_fetch_size=1 << 20,
    broker_rebalance_timeout=4,
    broker_session_timeout=6,
    broker_heartbeat_interval=1,
    consumer_auto_offset_reset="earliest",
    topic_allow_declare=False,
    topic_disable_leader=True,
    stream_wait_empty=False,
    store="memory://",
    datadir=tempfile.mkdtemp(),
    web_enabled=False,
)
clicks = app.topic(topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


@app.agent(clicks, name="bare")
async def take(stream: Any) -> None:
    taken, started = 0, 0.0
    async for batch in stream.noack_take(1_000, within=0.01):
        started = started or time.perf_counter()
        taken += len(batch)
        if taken >= events:
            print(time.perf_counter() - started, flush=True)
            os._exit(0)


async def main() -> None:
    app.finalize()
    await app.start()
    await asyncio.Event().wait()


asyncio.run(main())
