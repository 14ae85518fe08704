"""The API, without Kafka: states are put in by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from models.events import Forget
from models.index import Measured
from models.rank import Candidate, rank
from models.sessions import WINDOWS, apply
from models.states import user_key
from models.visitor import Visitor
from serving import api
from serving.metrics import Metrics
from serving.problems import MAX_BODY
from tests.made import START, a_bundle
from tests.served import BUNDLE, NOW, USER, Client, Served, applied

LIST = [f"l{row}" for row in range(20)]
JSON = {"content-type": "application/json"}


@pytest.fixture
def made() -> Served:
    return Served()


@pytest.fixture
def client(made: Served) -> Client:
    return Client(made.app)


def asked(**changes: Any) -> dict[str, Any]:
    candidates = [{"listing_id": listing} for listing in LIST]
    return {"user_id": "u", "candidates": candidates, "timestamp": NOW, **changes}


def ranked(client: Client, **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/rank", json=asked(**changes))
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def order(answer: dict[str, Any]) -> list[str]:
    return [result["listing_id"] for result in answer["results"]]


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    said: dict[str, Any] = answer.json()
    assert said["status"] == status
    assert said["title"]
    assert said["type"].startswith("urn:insession:problem:")
    assert "Traceback" not in answer.text
    return said


def test_rank_answers_what_the_floor_ranks(client: Client) -> None:
    answer = ranked(client)
    same = rank(BUNDLE, Visitor(USER), [Candidate(listing) for listing in LIST], timestamp=NOW)
    assert answer["outcome"] == "ranked"
    assert order(answer) == [LIST[at] for at in same.order]
    assert same.scores is not None
    scores = [same.scores[at] for at in same.order]
    assert [result["score"] for result in answer["results"]] == pytest.approx(scores, abs=1e-6)
    assert [result["position"] for result in answer["results"]] == list(range(1, 21))
    assert [result["caller_position"] for result in answer["results"]] == [at + 1 for at in same.order]
    assert answer["bundle"] == BUNDLE.name
    assert not answer["stale"]
    assert answer["state"] == {"partition": 0, "offset": 0, "as_of": USER.as_of, "age_ms": 1_000}
    assert len(answer["rank_id"]) == 16
    assert 0 < answer["took_ms"] < 10_000


def test_every_answer_has_an_id_of_its_own(client: Client) -> None:
    assert ranked(client)["rank_id"] != ranked(client)["rank_id"]


def test_explained_contributions_add_up_to_the_score(client: Client) -> None:
    answer = ranked(
        client, explain=True, candidates=[{"listing_id": "l1"}, {"listing_id": "x"}, {"listing_id": "l9"}]
    )
    for result in answer["results"]:
        if result["listing_id"] == "x":
            assert result["known"] is False
            assert "contributions" not in result
        else:
            assert sum(result["contributions"].values()) == pytest.approx(result["score"], abs=1e-5)


def test_an_unknown_user_gets_the_callers_order(client: Client) -> None:
    answer = ranked(client, user_id="nobody")
    assert answer["outcome"] == "unknown-user"
    assert answer["state"] is None
    assert order(answer) == LIST
    assert "score" not in answer["results"][0]


def test_after_the_gap_the_session_is_history_and_after_two_weeks_nothing(client: Client) -> None:
    assert ranked(client, timestamp=USER.as_of + WINDOWS.gap + 1)["outcome"] == "ranked"
    answer = ranked(client, timestamp=USER.as_of + WINDOWS.history + 1)
    assert answer["outcome"] == "no-session"
    assert order(answer) == LIST
    assert ranked(client, timestamp=USER.as_of + WINDOWS.gap)["outcome"] == "ranked"


def test_without_a_timestamp_it_is_now(client: Client) -> None:
    body = asked()
    del body["timestamp"]
    assert client.post("/v1/rank", json=body).json()["outcome"] == "no-session"  # the session is of 2023


def test_listings_that_nobody_knows_keep_the_callers_order(client: Client) -> None:
    answer = ranked(client, candidates=[{"listing_id": "x"}, {"listing_id": "y"}])
    assert answer["outcome"] == "no-known-candidates"
    assert [result["known"] for result in answer["results"]] == [False, False]
    assert ranked(client, candidates=[])["results"] == []


def test_a_vector_of_another_bundle_is_stale(made: Served, client: Client) -> None:
    made.put(msgspec.structs.replace(USER, bundle="0123456789abcdef"))
    answer = ranked(client)
    assert answer["stale"]
    assert answer["outcome"] == "ranked"


def test_a_state_that_cant_be_read_is_named_and_the_list_comes_back(made: Served, client: Client) -> None:
    made.values[user_key(b"u")] = b'{"version": 9}'
    answer = ranked(client)
    assert answer["outcome"] == "unreadable-state"
    assert order(answer) == LIST


def test_a_model_that_fails_gives_the_callers_order(
    made: Served, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(BUNDLE.ranker, "scores", fail)
    answer = ranked(client)
    assert answer["outcome"] == "failed"
    assert order(answer) == LIST
    assert 'outcome="failed"' in client.get("/metrics").text


def test_an_offset_that_is_applied_is_not_waited_for(client: Client) -> None:
    assert ranked(client, min_offset=9, deadline_ms=1)["outcome"] == "ranked"


def test_past_the_deadline_the_callers_order_comes_back(client: Client) -> None:
    answer = ranked(client, min_offset=10, deadline_ms=20)
    assert answer["outcome"] == "deadline"
    assert order(answer) == LIST
    assert answer["took_ms"] >= 20


def test_a_request_waits_until_its_click_is_applied(made: Served) -> None:
    clicked = msgspec.structs.replace(USER, offset=10)

    async def ask() -> None:
        transport = httpx.ASGITransport(app=made.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://sidecar") as client:
            body = asked(min_offset=10, deadline_ms=5_000)
            waiting = asyncio.create_task(client.post("/v1/rank", json=body))
            other = asyncio.create_task(
                client.post("/v1/rank", json=body | {"min_offset": 11, "deadline_ms": 100})
            )
            await asyncio.sleep(0.02)
            assert not waiting.done()
            made.put(clicked)
            made.states.advance({0: applied(11)})
            answer = (await waiting).json()
            assert answer["outcome"] == "ranked"
            assert answer["state"]["offset"] == 10
            assert (await other).json()["outcome"] == "deadline"

    asyncio.run(ask())


def test_an_unknown_user_is_waited_for_where_kafka_puts_the_user(made: Served, client: Client) -> None:
    made.states.set(1, {0: applied(5)})
    assert ranked(client, user_id="nobody", min_offset=4, deadline_ms=1)["outcome"] == "unknown-user"
    assert ranked(client, user_id="nobody", min_offset=5, deadline_ms=1)["outcome"] == "deadline"
    made.states.set(0, {})
    assert ranked(client, user_id="nobody", min_offset=0, deadline_ms=1)["outcome"] == "deadline"
    # How many partitions there are is not known here.
    assert ranked(client, min_offset=0, partition=99, deadline_ms=1)["outcome"] == "deadline"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"user_id": None}, "$.user_id"),
        ({"user_id": ""}, "$.user_id"),
        ({"user_id": "u" * 257}, "$.user_id"),
        ({"candidates": [{"listing_id": "l1"}, {"listing_id": 7}]}, "$.candidates[1].listing_id"),
        ({"candidates": [{"score": 1}]}, "$.candidates[0].listing_id"),
        ({"candidates": [{"listing_id": "l1", "score": "high"}]}, "$.candidates[0].score"),
        ({"market": "here"}, "$.market"),
        ({"partition": 1}, "$.partition"),
        ({"candidates": [{"listing_id": f"x{at}"} for at in range(1_001)]}, "$.candidates"),
        (
            {"candidates": [{"listing_id": "l1"}, {"listing_id": "l2"}, {"listing_id": "l1"}]},
            "$.candidates[2].listing_id",
        ),
        ({"timestamp": -1}, "$.timestamp"),
        ({"timestamp": "now"}, "$.timestamp"),
        ({"min_offset": -1}, "$.min_offset"),
        ({"deadline_ms": 10_001}, "$.deadline_ms"),
        ({"min_ofset": 3}, "$.min_ofset"),
    ],
)
def test_a_wrong_field_is_named(client: Client, changes: dict[str, Any], field: str) -> None:
    said = problem(client.post("/v1/rank", json=asked(**changes)), 400)
    assert said["field"] == field
    assert said["detail"]


def test_a_missing_field_is_named(client: Client) -> None:
    assert problem(client.post("/v1/rank", json={"user_id": "u"}), 400)["field"] == "$.candidates"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]x", b"\xff", b'{"user_id": "\\ud800"}', b"[" * 100_000, b'{"user_id": 1e999}', b"null"],
)
def test_what_is_not_a_request_is_refused(client: Client, body: bytes) -> None:
    problem(client.post("/v1/rank", content=body, headers=JSON), 400)
    problem(client.post("/v1/recommend", content=body, headers=JSON), 400)


def test_a_thousand_candidates_are_ranked(client: Client) -> None:
    answer = ranked(client, candidates=[{"listing_id": f"l{at}"} for at in range(1_000)])
    assert sorted(order(answer)) == sorted(f"l{at}" for at in range(1_000))


def test_a_body_too_large_is_refused(client: Client) -> None:
    room = MAX_BODY - len(json.dumps(asked(user_id="nobody")))
    padded = json.dumps(asked(user_id="nobody")) + " " * room
    assert client.post("/v1/rank", content=padded, headers=JSON).status_code == 200
    problem(client.post("/v1/rank", content=padded + " ", headers=JSON), 413)

    async def endless() -> AsyncIterator[bytes]:  # without a content-length, so that it must be counted
        for _ in range(40):
            yield b" " * 65_536

    problem(client.post("/v1/rank", content=endless(), headers=JSON), 413)


def test_what_is_not_there_and_wrong_methods_are_problems(client: Client) -> None:
    problem(client.get("/v1/nothing"), 404)
    problem(client.post("/v1/rank/", json=asked()), 404)
    answer = client.get("/v1/rank")
    problem(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_similar_listings_are_the_nearest(client: Client) -> None:
    answer = client.get("/v1/similar/l5", params={"k": 5}).json()
    similarities = BUNDLE.vectors @ BUNDLE.vectors[5]
    nearest = [int(row) for row in np.argsort(-similarities) if row != 5][:5]
    assert [result["listing_id"] for result in answer["results"]] == [f"l{row}" for row in nearest]
    assert answer["results"][0]["similarity"] == pytest.approx(float(similarities[nearest[0]]), abs=1e-6)
    within = client.get("/v1/similar/l5", params={"k": 50, "market": "there"}).json()["results"]
    assert {result["listing_id"] for result in within} == {f"l{row}" for row in range(40, 60)}


def test_similar_refuses_what_it_does_not_know(client: Client) -> None:
    problem(client.get("/v1/similar/nothing/with/slashes"), 404)
    for k in ("0", "251", "many", "1.5"):
        assert problem(client.get("/v1/similar/l5", params={"k": k}), 400)["field"] == "k"


@pytest.mark.parametrize("path", ["/v1/similar/l5?kk=3", "/v1/similar/l5?k=3&kk=3", "/v1/users/u?kk=3"])
def test_a_parameter_that_nobody_knows_is_refused(client: Client, path: str) -> None:
    assert problem(client.get(path), 400)["field"] == "kk"


def test_a_listing_without_a_vector_has_nothing_near() -> None:
    vectors = BUNDLE.vectors.copy()
    vectors[5] = 0
    client = Client(Served(a_bundle(vectors=vectors)).app)
    assert client.get("/v1/similar/l5").json()["results"] == []


def test_recommendations_go_with_the_session(client: Client) -> None:
    body = {"user_id": "u", "k": 5, "timestamp": NOW, "explain": True}
    answer = client.post("/v1/recommend", json=body).json()
    assert answer["outcome"] == "ranked"
    assert len(answer["results"]) == 5
    scores = [result["score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    for result in answer["results"]:
        assert sum(result["contributions"].values()) == pytest.approx(result["score"], abs=1e-5)
    assert {"l7", "l9"} & {result["listing_id"] for result in answer["results"]}
    body |= {"exclude_seen": True, "k": 50, "market": "here"}
    listings = {result["listing_id"] for result in client.post("/v1/recommend", json=body).json()["results"]}
    assert listings == {f"l{row}" for row in range(40)} - {"l7", "l9"}


def test_recommend_says_why_there_is_nothing(made: Served, client: Client) -> None:
    def outcome(**changes: Any) -> str:
        answer = client.post("/v1/recommend", json={"user_id": "u", "timestamp": NOW, **changes}).json()
        assert answer["results"] == []
        said: str = answer["outcome"]
        return said

    assert outcome(user_id="nobody") == "unknown-user"
    assert outcome(timestamp=NOW + WINDOWS.gap) == "no-session"
    assert outcome(min_offset=10, deadline_ms=1) == "deadline"
    assert outcome(market="nowhere") == "no-known-candidates"
    made.put(msgspec.structs.replace(USER, vector=None))
    assert outcome() == "no-vector"
    made.put(msgspec.structs.replace(USER, bundle="another"))
    assert outcome() == "no-vector"


def test_a_user_can_be_looked_at(made: Served, client: Client) -> None:
    made.put(msgspec.structs.replace(USER, user_id="a/b c"))
    answer = client.get("/v1/users/a/b%20c").json()
    assert answer["user_id"] == "a/b c"
    assert answer["vector"] == list(USER.vector or ())
    assert answer["applied"] == {"next_offset": 10, "watermark": START}
    [session] = answer["sessions"]
    assert session["active"] is False
    assert [event["type"] for event in session["events"]] == ["search", "click", "wishlist"]
    assert session["events"][0]["results"] == ["l3", "l7", "l9"]
    problem(client.get("/v1/users/nobody"), 404)


def test_a_user_of_whom_only_the_mark_of_a_forget_is_left_is_unknown(made: Served, client: Client) -> None:
    forget = Forget(event_id="f", user_id="u", timestamp=USER.as_of)
    made.put(msgspec.structs.replace(USER, vector=None, state=apply(USER.state, forget)))
    problem(client.get("/v1/users/u"), 404)
    earlier = msgspec.structs.replace(forget, timestamp=USER.as_of - 1)
    made.put(msgspec.structs.replace(USER, state=apply(USER.state, earlier)))
    assert client.get("/v1/users/u").status_code == 200


def test_every_answer_is_of_its_type(client: Client) -> None:
    rank_ = client.post("/v1/rank", json=asked(explain=True)).content
    assert msgspec.json.decode(rank_, type=api.RankResponse).outcome == "ranked"
    recommend = client.post("/v1/recommend", json={"user_id": "u", "timestamp": NOW}).content
    assert msgspec.json.decode(recommend, type=api.RecommendResponse).outcome == "ranked"
    assert msgspec.json.decode(client.get("/v1/similar/l5").content, type=api.SimilarResponse).results
    assert msgspec.json.decode(client.get("/v1/users/u").content, type=api.UserResponse).sessions
    assert msgspec.json.decode(client.get("/healthz").content, type=api.Health).status == "up"


def test_readiness_gives_its_reasons(made: Served, client: Client) -> None:
    assert client.get("/readyz").status_code == 200
    made.status.problem = "can't follow the topics at x:1: away"
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["notes"] == [made.status.problem]
    made.status.caught_up = False
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == [made.status.problem]
    made.status.problem, made.status.behind = "", 12
    assert client.get("/readyz").json()["reasons"] == ["not caught up yet: 12 offsets behind"]


def test_metrics_count_answers_by_route_and_outcome(client: Client) -> None:
    ranked(client)
    ranked(client, user_id="nobody")
    client.post("/v1/rank", json={})
    text = client.get("/metrics").text
    for outcome in ("ranked", "unknown-user", "refused"):
        assert f'insession_request_seconds_count{{outcome="{outcome}",route="rank"}} 1.0' in text
    assert "insession_users 1.0" in text
    assert "insession_ready 1.0" in text
    assert f'insession_bundle{{bundle="{BUNDLE.name}"}} 1.0' in text


def test_metrics_tell_what_the_index_was_measured_to_find(client: Client) -> None:
    assert 'insession_index_recall{of="all"} NaN' in client.get("/metrics").text
    measured = Measured(ef=256, recall_at_100=0.98, worst_recall_at_100=0.96, links=16, queries=200)
    text = Metrics("b", measured).text().decode()
    assert 'insession_index_recall{of="all"} 0.98' in text
    assert 'insession_index_recall{of="worst"} 0.96' in text
