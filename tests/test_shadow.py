"""A second bundle ranks what was answered already: it says how the rankings differ, and the answer knows nothing of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from models import rank
from models.bundle import Bundle
from models.rank import Candidate
from models.sessions import UserEmbedding
from models.visitor import Visitor
from serving import shadow
from serving.metrics import Metrics
from serving.shadow import Shadow, kendall
from tests.made import a_bundle, unit
from tests.served import BUNDLE, NOW, USER, Client, Served

CANDIDATES = [Candidate(f"l{number}") for number in range(25)]
OTHER = a_bundle(vectors=unit(60, 16, 1))


@pytest.fixture
def served() -> Iterator[Served]:
    """With a shadow of another bundle, for every request."""
    made = Served()
    made.ranking.shadow = Shadow(OTHER, 1.0, made.metrics)
    made.ranking.shadow.start()
    yield made
    made.ranking.shadow.stop()


def figure(metrics: Metrics, line: str) -> float:
    [found] = [said for said in metrics.text().decode().splitlines() if said.startswith(f"{line} ")]
    return float(found.split()[1])


def wait_for(metrics: Metrics, outcome: str, number: int) -> None:
    ends = time.monotonic() + 10
    while figure(metrics, f'insession_shadow_rankings_total{{outcome="{outcome}"}}') < number:
        assert time.monotonic() < ends
        time.sleep(0.01)


def request() -> dict[str, object]:
    candidates = [{"listing_id": candidate.listing_id} for candidate in CANDIDATES]
    return {"user_id": "u", "timestamp": NOW, "candidates": candidates}


def test_the_answer_is_that_of_a_sidecar_without_one(served: Served) -> None:
    ours = Client(served.app).post("/v1/rank", json=request()).json()
    theirs = Client(Served().app).post("/v1/rank", json=request()).json()
    assert ours["results"] == theirs["results"]
    assert ours["bundle"] == theirs["bundle"] == BUNDLE.name


def test_how_the_rankings_differ_is_measured(served: Served) -> None:
    Client(served.app).post("/v1/rank", json=request())
    wait_for(served.metrics, "compared", 1)
    own = OTHER.encode(USER.state.sessions[-1])
    theirs = rank.rank(OTHER, Visitor.of(_as(OTHER, own)), CANDIDATES, timestamp=NOW).order.tolist()
    ours = rank.rank(BUNDLE, Visitor.of(USER), CANDIDATES, timestamp=NOW).order.tolist()
    assert ours != theirs
    overlap = len({*ours[:10]} & {*theirs[:10]}) / 10
    assert figure(served.metrics, "insession_shadow_overlap_sum") == pytest.approx(overlap)
    assert figure(served.metrics, "insession_shadow_same_first_total") == (ours[0] == theirs[0])
    tau = kendall(np.array(ours), np.array(theirs))
    within = {
        edge: figure(served.metrics, f'insession_shadow_kendall_tau_bucket{{le="{edge}"}}')
        for edge in ("-1.0", "-0.4", "0.0", "0.4", "0.8", "1.0")
    }
    assert within == {edge: float(tau <= float(edge)) for edge in within}


def _as(bundle: Bundle, vector: tuple[float, ...] | None) -> UserEmbedding:
    return msgspec.structs.replace(USER, vector=vector, bundle=bundle.name)


def test_a_shadow_that_is_slow_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, going, busy = Metrics("b"), threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> None:
        busy.set()
        going.wait(10)

    monkeypatch.setattr(shadow.rank, "rank", slow)
    made = Shadow(OTHER, 1.0, metrics)
    made.start()
    made.offer(Visitor.of(USER), CANDIDATES, NOW, [0])
    assert busy.wait(10)
    begun = time.perf_counter()
    for _ in range(shadow.WAITING + 7):
        made.offer(Visitor.of(USER), CANDIDATES, NOW, [0])
    assert time.perf_counter() - begun < 1
    assert figure(metrics, 'insession_shadow_rankings_total{outcome="dropped"}') == 7
    going.set()
    made.stop()


def test_a_shadow_that_fails_is_counted_and_goes_on(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(served.app)
    with monkeypatch.context() as patch:
        patch.setattr(OTHER.__class__, "encode", lambda *_: 1 / 0)
        assert client.post("/v1/rank", json=request()).json()["outcome"] == "ranked"
        wait_for(served.metrics, "failed", 1)
    client.post("/v1/rank", json=request())
    wait_for(served.metrics, "compared", 1)


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.3, 200, 400), (1.0, 1000, 1000)])
def test_a_share_is_compared(share: float, least: int, most: int) -> None:
    made = Shadow(OTHER, share, Metrics("b"))
    assert least <= sum(made.chosen() for _ in range(1000)) <= most


def test_what_is_not_chosen_is_not_compared(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(served.app)
    monkeypatch.setattr(Shadow, "chosen", lambda _: False)
    assert client.post("/v1/rank", json=request()).json()["outcome"] == "ranked"
    monkeypatch.setattr(Shadow, "chosen", lambda _: True)
    client.post("/v1/rank", json=request())
    wait_for(served.metrics, "compared", 1)


@pytest.mark.parametrize(
    ("other", "tau"), [([0, 1, 2, 3], 1.0), ([3, 2, 1, 0], -1.0), ([1, 0, 2, 3], 2 / 3), ([2, 0, 3, 1], 0.0)]
)
def test_kendalls_tau(other: list[int], tau: float) -> None:
    assert kendall(np.arange(4), np.array(other)) == pytest.approx(tau)
    assert kendall(np.array(other), np.arange(4)) == pytest.approx(tau)
