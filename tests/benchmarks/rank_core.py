"""rank_core: 200 candidates from the request's bytes to the answer's, without HTTP, in microseconds.

All features and the sidecar's own functions: users have 8 events open and 20 of history. The records come from memory;
requests are of 500 users and lists in turn, since one that is asked over and over would find everything in the cache.
"""

from __future__ import annotations

import random
import statistics
import time

import msgspec

from models.states import history_key, user_key
from serving import _lists
from serving.memory import Memory
from serving.metrics import Metrics
from serving.ranking import Ranking
from serving.states import States
from tests.benchmarks import users
from tests.benchmarks.result import Result
from tests.made import START, a_bundle, act, past, user_in

LISTINGS, CANDIDATES, USERS, ROUNDS = 20_000, 200, 500, 8
KINDS = ("click", "long-click", "skip", "click", "wishlist", "skip", "click", "skip", "inquiry", "booking")


def run() -> list[Result]:
    rng = random.Random(1)
    bundle = a_bundle(LISTINGS, 32, markets=[f"m{row % 20}" for row in range(LISTINGS)])
    values, bodies = {}, []
    for number in range(USERS):
        name, market = users.user_id(number), rng.randrange(20)
        own = [f"l{20 * rng.randrange(LISTINGS // 20) + market}" for _ in range(CANDIDATES)]
        own = list(dict.fromkeys(own))
        state = user_in(bundle, *(act(at * 40, own[at]) for at in range(8)))
        values[user_key(name.encode())] = msgspec.json.encode(msgspec.structs.replace(state, user_id=name))
        deeds = [(kind, rng.choice(own), None) for kind in KINDS * 2]
        values[history_key(name.encode())] = msgspec.json.encode(past(*deeds))
        wanted = [{"listing_id": listing, "score": round(rng.gauss(0, 1), 3)} for listing in own]
        while len(wanted) < CANDIDATES:
            wanted.append({"listing_id": f"x{len(wanted)}", "score": 0.5})
        bodies.append(msgspec.json.encode({"user_id": name, "candidates": wanted}))
    ranking = Ranking(bundle, States(values.get, memory=Memory(64 << 20)), Metrics(bundle.name))
    encode = msgspec.json.Encoder().encode
    seconds = []
    for _ in range(ROUNDS):
        for body in bodies:
            started = time.perf_counter()
            asked = _lists.asked(body)
            assert asked is not None
            encode(ranking.rank_now(asked, START + 400_000, started))
            seconds.append(time.perf_counter() - started)
    return [Result(name="rank_core", value=statistics.median(seconds) * 1e6, unit="us")]
