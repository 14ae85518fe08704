"""The API, without Kafka: states are put in by hand."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from models import events
from models.diversity import diversify
from models.events import Forget
from models.features import CALLER_SCORE, FEATURES, KNOTS
from models.index import Measured
from models.rank import Candidate, rank
from models.ranker import Ranker
from models.recording import partition_of
from models.sessions import WINDOWS, State, apply
from models.states import user_key
from models.visitor import Visitor
from serving import api, ranking
from serving.metrics import Metrics
from serving.problems import MAX_BATCH_BODY, MAX_BODY
from serving.variants import parse
from tests.made import START, a_bundle, visit
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
    same = rank(BUNDLE, Visitor.of(USER), [Candidate(listing) for listing in LIST], timestamp=NOW)
    assert answer["outcome"] == "ranked"
    assert order(answer) == [LIST[at] for at in same.order]
    assert same.scores is not None
    scores = same.scores[same.order].tolist()
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

    monkeypatch.setattr(BUNDLE.ranker, "rank", fail)
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
        ({"markets": "here"}, "$.markets"),
        ({"extend": 251}, "$.extend"),
        ({"diversity": 1.5}, "$.diversity"),
        ({"candidates": [{"listing_id": "l1", "price": -1}]}, "$.candidates[0].price"),
        ({"candidates": [{"listing_id": "l1", "pin": 0}]}, "$.candidates[0].pin"),
        ({"candidates": [{"listing_id": f"x{at}"} for at in range(1_001)]}, "$.candidates"),
        ({"timestamp": -1}, "$.timestamp"),
        ({"timestamp": "now"}, "$.timestamp"),
        ({"min_offset": -1}, "$.min_offset"),
        ({"deadline_ms": 10_001}, "$.deadline_ms"),
        ({"deadline_ms": 0}, "$.deadline_ms"),
        ({"min_ofset": 3}, "$.min_ofset"),
    ],
)
def test_a_wrong_field_is_named(client: Client, changes: dict[str, Any], field: str) -> None:
    said = problem(client.post("/v1/rank", json=asked(**changes)), 400)
    assert said["field"] == field
    assert said["detail"]


def test_an_integer_is_a_number_without_a_fraction(client: Client) -> None:
    whole = json.dumps(asked(deadline_ms=4_321)).replace("4321", "4321.0").replace(str(NOW), f"{NOW}.0")
    assert client.post("/v1/rank", content=whole, headers=JSON).json()["outcome"] == "ranked"
    broken = whole.replace("4321.0", "4321.5")
    assert problem(client.post("/v1/rank", content=broken, headers=JSON), 400)["field"] == "$.deadline_ms"


def pins(**places: int) -> list[dict[str, Any]]:
    return [
        {"listing_id": f"l{row}", **({"pin": places[f"l{row}"]} if f"l{row}" in places else {})}
        for row in range(4)
    ]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"partition": 1}, "$.partition"),
        ({"candidates": pins(l1=5)}, "$.candidates[1].pin"),
        ({"candidates": pins(l1=2, l3=2)}, "$.candidates[3].pin"),
        (
            {"candidates": [{"listing_id": "l1"}, {"listing_id": "l2"}, {"listing_id": "l1"}]},
            "$.candidates[2].listing_id",
        ),
    ],
)
def test_what_contradicts_itself_is_named(client: Client, changes: dict[str, Any], field: str) -> None:
    said = problem(client.post("/v1/rank", json=asked(**changes)), 422)
    assert said["field"] == field
    batch = {"requests": [asked(), asked(**changes)]}
    assert problem(client.post("/v1/rank/batch", json=batch), 422)["field"] == field.replace(
        "$", "$.requests[1]"
    )


def test_a_missing_field_is_named(client: Client) -> None:
    assert problem(client.post("/v1/rank", json={"user_id": "u"}), 400)["field"] == "$.candidates"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]x",
        b"\xff",
        b'{"user_id": "\\ud800"}',
        b"[" * 100_000,
        b'{"user_id": 1e999}',
        b"null",
        b'{"user_id": "u", "timestamp": 1.0, "candidates": [], "x": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"user_id": "u", "timestamp": 1.0, "candidates": [',
        b'{"user_id": "u", "timestamp": 1e300, "candidates": []}',
    ],
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


def test_retrieved_listings_are_ranked_with_the_callers(client: Client) -> None:
    given = [{"listing_id": "l1", "score": 3.0}, {"listing_id": "l9", "score": 5.0}, {"listing_id": "l50"}]
    plain = ranked(client, candidates=given)
    answer = ranked(client, candidates=given, extend=5)
    added = [result for result in answer["results"] if result.get("retrieved")]
    assert len(added) == 5
    assert not any("caller_position" in result for result in added)
    named = {result["listing_id"] for result in added}
    similarities = BUNDLE.vectors @ np.array(USER.vector, np.float32)
    nearest = [f"l{row}" for row in np.argsort(-similarities)]
    assert named == set([listing for listing in nearest if listing not in ("l1", "l9", "l50")][:5])
    assert order(plain) == [listing for listing in order(answer) if listing not in named]
    scores = [result["score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    within = ranked(client, candidates=given, extend=250, market="there")["results"]
    there = {result["listing_id"] for result in within if result.get("retrieved")}
    assert there == {f"l{row}" for row in range(40, 60)} - {"l50"}


def test_retrieved_listings_leave_the_callers_scores_in_force() -> None:
    weights = np.zeros((len(FEATURES), KNOTS), np.float32)
    weights[CALLER_SCORE] = np.arange(KNOTS)
    made = Served(a_bundle(vectors=BUNDLE.vectors, learned=Ranker(weights)))
    given = [{"listing_id": listing, "score": float(at)} for at, listing in enumerate(LIST)]
    answer = ranked(Client(made.app), candidates=given, extend=3)
    assert order(answer)[:19] == LIST[:0:-1]
    assert order(answer)[19] == "l0"  # the retrieved ones have its score, and stand behind it


def test_nothing_is_retrieved_where_there_is_nothing_to_retrieve_by(made: Served, client: Client) -> None:
    assert order(ranked(client, user_id="nobody", extend=5)) == LIST
    assert sorted(order(ranked(client, timestamp=NOW + WINDOWS.gap, extend=5))) == sorted(LIST)
    made.put(msgspec.structs.replace(USER, bundle="another"))
    assert sorted(order(ranked(client, extend=5))) == sorted(LIST)
    made.put(USER)
    assert len(ranked(client, candidates=[], extend=5)["results"]) == 5


def test_pinned_candidates_stand_where_they_must_whatever_the_outcome(client: Client) -> None:
    given = [{"listing_id": listing} for listing in LIST]
    free = order(ranked(client, candidates=given))
    given[4]["pin"], given[11]["pin"], given[0]["pin"] = 1, 20, 7  # type: ignore[assignment]
    for changes in ({}, {"extend": 5}, {"user_id": "nobody"}, {"min_offset": 99, "deadline_ms": 5}):
        now = order(ranked(client, candidates=given, **changes))
        assert (now[0], now[19], now[6]) == ("l4", "l11", "l0")
    left = [
        listing for listing in order(ranked(client, candidates=given)) if listing not in ("l4", "l11", "l0")
    ]
    assert left == [listing for listing in free if listing not in ("l4", "l11", "l0")]


def test_a_diverse_list_is_that_of_the_floor_around_unknown_listings(client: Client) -> None:
    given = [{"listing_id": listing} for listing in ("x", *LIST, "y")]
    plain, diverse = ranked(client, candidates=given), ranked(client, candidates=given, diversity=0.7)
    assert order(diverse) != order(plain)
    assert order(diverse)[0] == "x"
    assert order(diverse)[-1] == "y"
    known = [result for result in plain["results"] if result.get("known", True)]
    rows = [int(result["listing_id"][1:]) for result in known]
    best = diversify(np.array([result["score"] for result in known], np.float32), BUNDLE.vectors[rows], 0.7)
    assert order(diverse)[1:-1] == [f"l{rows[at]}" for at in best]
    score = {result["listing_id"]: result["score"] for result in plain["results"]}
    assert {result["listing_id"]: result["score"] for result in diverse["results"]} == score


@pytest.mark.parametrize("slow", ["nearest", "rank"])
def test_work_that_takes_longer_than_the_deadline_is_left(
    client: Client, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    where = ranking.retrieval if slow == "nearest" else ranking.ranking
    name = slow
    at_once = getattr(where, name)

    def late(*arguments: Any, **named: Any) -> Any:
        time.sleep(0.03)
        return at_once(*arguments, **named)

    monkeypatch.setattr(where, name, late)
    answer = ranked(client, extend=5, diversity=0.5, deadline_ms=20)
    assert answer["outcome"] == "deadline"
    assert order(answer) == LIST
    assert ranked(client, extend=5, diversity=0.5, deadline_ms=2_000)["outcome"] == "ranked"


def test_a_batch_answers_each_in_its_order_with_an_outcome_of_its_own(made: Served, client: Client) -> None:
    made.put(msgspec.structs.replace(USER, user_id="v"))
    asks = [
        asked(),
        asked(user_id="nobody"),
        asked(user_id="v", candidates=[]),
        asked(min_offset=10, deadline_ms=800),
        asked(user_id="v", min_offset=11, deadline_ms=800),
    ]
    begun = time.perf_counter()
    answer = client.post("/v1/rank/batch", json={"requests": asks}).json()
    assert time.perf_counter() - begun < 1.5  # they wait together
    outcomes = [one["outcome"] for one in answer["answers"]]
    assert outcomes == ["ranked", "unknown-user", "no-known-candidates", "deadline", "deadline"]
    assert order(answer["answers"][0]) == order(ranked(client))
    assert len({one["rank_id"] for one in answer["answers"]}) == 5
    text = client.get("/metrics").text
    assert 'insession_outcomes_total{outcome="deadline",route="batch"} 2.0' in text
    assert 'insession_request_seconds_count{outcome="answered",route="batch"} 1.0' in text


def test_a_batch_is_of_one_bundle_whatever_is_switched_to_meanwhile(made: Served, client: Client) -> None:
    other = replace(BUNDLE, name="other")
    answered = made.ranking._answer

    def switching(*arguments: Any) -> api.RankResponse:
        answer = answered(*arguments)
        made.ranking.bundle = other
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking.Ranking, "_answer", lambda _, *arguments: switching(*arguments))
        answers = client.post("/v1/rank/batch", json={"requests": [asked()] * 3}).json()["answers"]
    assert [one["bundle"] for one in answers] == [BUNDLE.name] * 3
    assert ranked(client)["bundle"] == "other"


def test_a_ranker_whose_scores_are_beyond_measure_gives_the_callers_order() -> None:
    weights = np.full((len(FEATURES), KNOTS), np.nan, np.float32)
    answer = ranked(Client(Served(a_bundle(vectors=BUNDLE.vectors, learned=Ranker(weights))).app))
    assert answer["outcome"] == "failed"
    assert order(answer) == LIST


def test_batches_have_limits(client: Client) -> None:
    few = {"user_id": "u", "candidates": []}
    assert len(client.post("/v1/rank/batch", json={"requests": [few] * 100}).json()["answers"]) == 100
    said = problem(client.post("/v1/rank/batch", json={"requests": [few] * 101}), 400)
    assert said["field"] == "$.requests"
    many = {"user_id": "u", "candidates": [{"listing_id": f"l{at}"} for at in range(1_000)]}
    assert client.post("/v1/rank/batch", json={"requests": [many] * 20}).status_code == 200
    said = problem(client.post("/v1/rank/batch", json={"requests": [*[many] * 20, asked()]}), 422)
    assert said["field"] == "$.requests"
    said = problem(client.post("/v1/rank/batch", json={"requests": [few, {"user_id": 3}]}), 400)
    assert said["field"] == "$.requests[1].user_id"
    problem(client.post("/v1/rank/batch", content=b" " * (MAX_BATCH_BODY + 1), headers=JSON), 413)


def test_an_answer_goes_into_the_next_search_event() -> None:
    bundle = replace(BUNDLE, name="0123456789abcdef")
    made = Served(bundle, variants=parse(["half=0.5", "control=0.5:caller"], "e"))
    answer = ranked(Client(made.app))
    search = {
        "type": "search",
        "event_id": "s1",
        "user_id": "u",
        "timestamp": NOW,
        "results": [
            {"listing_id": result["listing_id"], "position": result["position"]}
            for result in answer["results"]
        ],
        "ranking": {name: answer[name] for name in ("rank_id", "bundle", "variant", "propensity")},
    }
    event = events.decode(json.dumps(search).encode(), b"u")
    assert isinstance(event, events.Search)
    assert event.ranking == events.Ranking(
        rank_id=answer["rank_id"],
        bundle=bundle.name,
        variant=answer["variant"],
        propensity=0.5,
    )


def test_users_of_the_callers_variant_get_the_callers_order() -> None:
    made = Served(variants=parse(["control=0.5:caller"], "e"))
    client = Client(made.app)
    for number in range(40):
        made.put(msgspec.structs.replace(USER, user_id=f"u{number}"))
        answer = ranked(client, user_id=f"u{number}")
        assert answer["variant"] == made.ranking.variants.of(f"u{number}").name
        assert answer["propensity"] == 0.5
        assert answer["outcome"] == {"control": "held-out", "default": "ranked"}[answer["variant"]]
        assert (order(answer) == LIST) == (answer["variant"] == "control")
        body = {"user_id": f"u{number}", "timestamp": NOW}
        assert client.post("/v1/recommend", json=body).json()["outcome"] == answer["outcome"]
    assert 'outcome="held-out",route="rank"' in client.get("/metrics").text


def test_users_of_a_variant_with_a_bundle_are_ranked_with_it_and_never_by_vectors_of_another() -> None:
    other = replace(a_bundle(vectors=BUNDLE.vectors[:, ::-1]), name="0123456789abcdef")
    made = Served(variants=parse(["other=1:somewhere"]))
    made.ranking.bundles["other"] = other
    client = Client(made.app)
    answer = ranked(client)
    assert (answer["bundle"], answer["variant"], answer["stale"]) == (other.name, "other", True)
    assert "insession_stale_answers_total 1.0" in client.get("/metrics").text
    made.put(msgspec.structs.replace(USER, bundle=other.name, vector=USER.vector[::-1]))  # type: ignore[index]
    answer = ranked(client)
    assert not answer["stale"]
    same = rank(BUNDLE, Visitor.of(USER), [Candidate(listing) for listing in LIST], timestamp=NOW)
    assert order(answer) == [LIST[at] for at in same.order]


def test_users_of_partitions_held_elsewhere_are_sent_there() -> None:
    made = Served(peers={"http://b:80": frozenset({1}), "http://c:80": frozenset({3})})
    made.states.set(4, {0: applied(10)})
    made.states.held = frozenset({0})
    client = Client(made.app)
    assert client.get("/v1/partitions").json() == {
        "partitions": 4,
        "held": [0],
        "peers": {"http://b:80": [1], "http://c:80": [3]},
        "how": api.Partitions.__struct_defaults__[0],
    }
    users = {partition_of(f"n{at}".encode(), 4): f"n{at}" for at in range(50)}
    assert ranked(client, user_id=users[0])["outcome"] == "unknown-user"
    for number, base in ((1, "http://b:80"), (3, "http://c:80")):
        for changes in ({}, {"min_offset": 5}, {"user_id": users[0], "partition": number}):
            answer = client.post("/v1/rank", json=asked(**{"user_id": users[number], **changes}))
            assert problem(answer, 307)["partition"] == number
            assert answer.headers["location"] == f"{base}/v1/rank"
    answer = client.post("/v1/recommend", json={"user_id": users[2]})
    assert problem(answer, 421)["partition"] == 2
    assert "location" not in answer.headers
    assert client.get(f"/v1/users/{users[1]}").headers["location"] == f"http://b:80/v1/users/{users[1]}"
    assert client.get(f"/v1/similar/l5?user_id={users[2]}").status_code == 421
    similar = client.get(f"/v1/similar/l5?user_id={users[1]}&market=here&exclude_seen=true")
    assert similar.headers["location"] == (
        f"http://b:80/v1/similar/l5?k=10&user_id={users[1]}&market=here&exclude_seen=true"
    )
    batch = {"requests": [asked(), asked(user_id=users[2]), asked(user_id=users[1], min_offset=3)]}
    answers = client.post("/v1/rank/batch", json=batch).json()["answers"]
    assert [one["outcome"] for one in answers] == ["ranked", "not-held", "not-held"]
    assert order(answers[1]) == LIST
    assert 'outcome="elsewhere",route="rank"' in client.get("/metrics").text
    # Who is stored here is answered here, wherever Kafka's default would put them.
    made.put(msgspec.structs.replace(USER, user_id=users[2]))
    assert ranked(client, user_id=users[2])["outcome"] == "ranked"
    assert ranked(client, user_id=users[2], min_offset=9)["outcome"] == "ranked"


def test_with_a_token_only_health_is_open() -> None:
    client = Client(Served(token="s3cret").app)
    for path in ("/healthz", "/readyz"):
        assert client.get(path).status_code == 200
    for given in (None, "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret", "Bearer "):
        headers = {"authorization": given} if given else {}
        for path in ("/metrics", "/v1/users/u", "/v1/partitions", "/nothing"):
            answer = client.get(path, headers=headers)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert "s3cret" not in problem(answer, 401)["detail"]
        problem(client.post("/v1/rank", json=asked(), headers=headers), 401)
    for given in ("Bearer s3cret", "bearer s3cret"):
        headers = {"authorization": given}
        assert client.post("/v1/rank", json=asked(), headers=headers).json()["outcome"] == "ranked"
        assert client.get("/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize("named", [True, False])
def test_the_log_names_users_only_where_asked(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    made = Served()
    made.ranking.log_users = named
    client = Client(made.app)
    made.put(msgspec.structs.replace(USER, user_id="vera-42"))
    made.values[user_key(b"xaver-42")] = b'{"version": 9}'
    ranked(client, user_id="xaver-42")
    client.get("/v1/users/xaver-42")
    client.get("/v1/similar/l5?user_id=xaver-42")
    monkeypatch.setattr(BUNDLE.ranker, "rank", None)
    ranked(client, user_id="vera-42")
    client.post("/v1/recommend", json={"user_id": "vera-42", "timestamp": NOW})
    assert len(caplog.records) >= 4
    for user in ("vera-42", "xaver-42"):
        assert (user in caplog.text) is named


def test_a_listing_that_the_bundle_does_not_know_is_counted(client: Client) -> None:
    ranked(client, candidates=[{"listing_id": "l1"}, {"listing_id": "x"}, {"listing_id": "y"}])
    ranked(client, user_id="nobody", candidates=[{"listing_id": "x"}])
    assert "insession_unknown_listings_total 3.0" in client.get("/metrics").text


def test_similar_listings_are_ranked_for_a_visitor(made: Served, client: Client) -> None:
    url = "/v1/similar/l5"
    assert client.get(url).json()["outcome"] == "nearest"
    made.put(msgspec.structs.replace(USER, as_of=int(time.time() * 1000), state=fresh()))
    answer = client.get(url, params={"k": 60, "user_id": "u"}).json()
    assert answer["outcome"] == "ranked"
    scores = [result["score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert {"l7", "l9"} < {result["listing_id"] for result in answer["results"]}
    assert re.fullmatch("[0-9a-f]{16}", answer["rank_id"])
    assert (answer["variant"], answer["propensity"]) == ("default", 1.0)
    assert answer["state"]["offset"] == USER.offset
    assert "rank_id" not in client.get(url).json()
    assert problem(client.get(url, params={"exclude_seen": "true"}), 422)["field"] == "exclude_seen"
    unseen = client.get(url, params={"k": 60, "user_id": "u", "exclude_seen": "true"}).json()
    assert not {"l5", "l7", "l9"} & {result["listing_id"] for result in unseen["results"]}
    stranger = client.get(url, params={"k": 5, "user_id": "nobody"}).json()
    assert stranger["outcome"] == "unknown-user"
    plain = client.get(url, params={"k": 5}).json()["results"]
    assert stranger["results"] == plain
    for name, value in (("exclude_seen", "perhaps"), ("user_id", ""), ("market", "")):
        assert problem(client.get(url, params={name: value}), 400)["field"] == name


def fresh() -> State:
    """The user's visit, moved to now."""
    now, last = int(time.time() * 1000), USER.as_of
    [session] = USER.state.sessions
    moved = tuple(
        msgspec.structs.replace(event, timestamp=event.timestamp - last + now) for event in session.events
    )
    return State(sessions=(visit(*moved),), last=now)


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
    [note] = answer.json()["notes"]
    assert re.fullmatch(rf"{re.escape(made.status.problem)}; the states are [\d,]+ s old", note)
    made.status.store = "the store x can't be used: full"
    assert client.get("/readyz").json()["notes"] == [note, made.status.store]
    made.status.store = ""
    made.status.caught_up, made.status.warm = False, True
    assert client.get("/readyz").json()["notes"] == [note]
    made.status.warm = False
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


def test_times_stand_in_buckets_that_add_up() -> None:
    metrics = Metrics("b")
    for seconds in (0.0001, 0.0002, 0.0003, 0.5, 20.0):
        metrics.observe("rank", "ranked", seconds)
    metrics.observe("users", "answered", 0.004)
    lines = metrics.text().decode().splitlines()
    name, labels = "insession_request_seconds", 'outcome="ranked",route="rank"'
    counts = {
        bound: f'{name}_bucket{{le="{bound}",{labels}}} {count}'
        for bound, count in (
            ("0.0002", "2.0"),
            ("0.0005", "3.0"),
            ("0.2", "3.0"),
            ("0.5", "4.0"),
            ("+Inf", "5.0"),
        )
    }
    assert set(counts.values()) <= set(lines)
    assert f"{name}_count{{{labels}}} 5.0" in lines
    [total] = [line for line in lines if line.startswith(f"{name}_sum{{{labels}}}")]
    assert float(total.split()[-1]) == pytest.approx(20.5006)
