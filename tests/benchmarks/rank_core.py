"""rank_core: 200 candidates from the request's bytes to the answer's, without HTTP, in microseconds."""

from __future__ import annotations

import statistics
import time

import msgspec

from models.rank import rank
from models.states import decode_embedding
from models.visitor import Visitor
from serving.api import RankRequest
from tests.benchmarks.result import Result
from tests.made import START, a_bundle, act, user_in

RUNS = 2_000


def run() -> list[Result]:
    bundle = a_bundle(5_000, 32)
    state = msgspec.json.encode(user_in(bundle, *(act(at * 10, f"l{at * 7}") for at in range(8))))
    body = msgspec.json.encode(
        {"user_id": "u", "candidates": [{"listing_id": f"l{number}"} for number in range(200)]}
    )
    decoder, encoder = msgspec.json.Decoder(RankRequest), msgspec.json.Encoder()
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        request = decoder.decode(body)
        ranked = rank(bundle, Visitor(decode_embedding(state)), request.candidates, timestamp=START + 100_000)
        scores = ranked.scores or []
        encoder.encode(
            [{"listing_id": request.candidates[at].listing_id, "score": scores[at]} for at in ranked.order]
        )
        seconds.append(time.perf_counter() - started)
    return [Result(name="rank_core", value=statistics.median(seconds) * 1e6, unit="us")]
