"""The client where no sidecar helps: away, slow, broken, or something else that answers."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from insession_client import Candidate, Refused, Request, sidecars

from models import events
from streams.broker import free_port
from tests.stand_in import LISTINGS, USERS, Answer, problem, ranked, stand_in


def test_where_nobody_listens_the_given_order_comes_back(asking: Callable[..., Any]) -> None:
    told: list[str] = []
    client = asking(f"http://127.0.0.1:{free_port()}", on_away=told.append)
    ranking = client.rank("ada", LISTINGS)
    assert (ranking.outcome, ranking.listing_ids) == ("away", LISTINGS)
    assert [result.caller_position for result in ranking.results] == list(range(1, 21))
    assert "ranking" not in ranking.event()
    events.decode(json.dumps(ranking.event()).encode(), b"ada")
    assert client.recommend("ada").outcome == "away"
    assert client.similar("l1").outcome == "away"
    batch = client.rank_batch([Request(user_id="ada", candidates=(Candidate("l1"),))])
    assert [each.outcome for each in batch] == ["away"]
    assert client.away == len(told) == 4
    assert "127.0.0.1" in told[0]


def test_a_sidecar_that_fails_again_and_again_is_left_alone_for_a_while(
    asking: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidecars, "REST_SECONDS", 0.3)
    with stand_in(lambda path, body: problem(503)) as broken:
        client = asking(broken.url)
        for _ in range(10):
            assert client.rank("ada", LISTINGS).outcome == "away"
        assert len(broken.asked) == sidecars.FAILURES
        time.sleep(0.35)
        assert client.rank("ada", LISTINGS).outcome == "away"
        assert client.rank("ada", LISTINGS).outcome == "away"
        assert len(broken.asked) == sidecars.FAILURES + 1
        broken.answer = ranked
        time.sleep(0.35)
        assert [client.rank("ada", LISTINGS).outcome for _ in range(3)] == ["ranked"] * 3


@pytest.mark.parametrize("pause", ["before", "within"])
def test_a_slow_sidecar_is_not_waited_for(asking: Callable[..., Any], pause: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 16)
                if pause == "within":
                    for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + b" " * 100:
                        try:
                            connection.send(bytes([byte]))
                        except OSError:
                            return
                        time.sleep(0.03)
                else:
                    time.sleep(1)

        thread = threading.Thread(target=drip)
        thread.start()
        client = asking(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=0.15)
        begun = time.monotonic()
        assert client.rank("ada", LISTINGS).outcome == "away"
        assert 0.1 < time.monotonic() - begun < 0.6
        client.close()
        thread.join()


@pytest.mark.parametrize(
    "answer", [b"", b"<html>", b'{"outcome": 7}', b'{"outcome": "\xff"}', b'{"x":' + b"[" * 9_999]
)
@pytest.mark.parametrize("sidecars", [1, 2])
def test_what_is_no_answer_is_none(asking: Callable[..., Any], answer: bytes, sidecars: int) -> None:
    with stand_in(lambda path, body: (200, answer, {})) as one, stand_in(ranked) as two:
        two.answer = one.answer
        client = asking([one.url, two.url][:sidecars])
        assert client.rank("ada", LISTINGS).outcome == "away"
        assert client.away == 1


@pytest.mark.parametrize(
    "answer",
    [
        (400, b"<html>", {}),
        (400, b'{"status": 400, "detail": "\xff"}', {}),
        (400, {"type": "https://proxy.example/bad", "status": 400}, {}),
        (401, {**problem(401)[1]}, {"www-authenticate": "Bearer"}),
        (403, b"Forbidden", {"content-type": "text/plain"}),
        (404, b"<html>Not Found</html>", {"content-type": "text/html"}),
        (404, {**problem(404)[1]}, {}),
        (405, {**problem(405)[1]}, {}),
        (302, b"", {"location": "/login"}),
        (204, b"", {}),
    ],
)
def test_what_is_not_about_the_request_is_not_raised(asking: Callable[..., Any], answer: Answer) -> None:
    """The token, the address, a proxy, a port that something else took: no search is to break of it."""
    told: list[str] = []
    with stand_in(lambda path, body: answer) as other, stand_in(ranked) as well:
        client = asking(other.url, on_away=told.append)
        batch = [Request(user_id="ada", candidates=(Candidate("l1"),))]
        assert client.rank("ada", LISTINGS).listing_ids == LISTINGS
        assert [ranking.outcome for ranking in client.rank_batch(batch)] == ["away"]
        assert client.recommend("ada").outcome == "away"
        # Nothing but the waiting is wrong with leaving it alone.
        assert client.similar("l1").outcome == "away"
        assert len(other.asked) == sidecars.FAILURES
        assert len(told) == client.away == 4
        assert told[0].startswith(f"{other.url}: {answer[0]}")
        # Another one that may have the user is asked, which a problem of the request would not be.
        client = asking([other.url, well.url])
        assert [client.rank("ada", LISTINGS).outcome for _ in range(4)] == ["ranked"] * 4


def without(path: str, body: Any) -> Answer:
    status, said, headers = ranked(path, body)
    said["results"].pop()
    return status, said, headers


def with_another(path: str, body: Any) -> Answer:
    status, said, headers = ranked(path, body)
    said["results"][3] = {**said["results"][3], "listing_id": "another"}
    return status, said, headers


def with_more(path: str, body: Any) -> Answer:
    status, said, headers = ranked(path, body)
    said["results"].append({"listing_id": "more", "position": 21, "retrieved": True})
    return status, said, headers


def with_one_twice(path: str, body: Any) -> Answer:
    status, said, headers = ranked(path, body)
    said["results"][3] = said["results"][4]
    return status, said, headers


def empty(path: str, body: Any) -> Answer:
    return 200, {"outcome": "ranked", "results": []}, {}


@pytest.mark.parametrize("answer", [without, with_another, with_more, with_one_twice, empty])
def test_an_answer_has_the_candidates_and_what_was_retrieved(
    asking: Callable[..., Any], answer: Callable[[str, Any], Any]
) -> None:
    def batch(path: str, body: Any) -> Answer:
        return 200, {"answers": [answer("", each)[1] for each in body["requests"]]}, {}

    with stand_in(answer) as other:
        client = asking(other.url)
        ranking = client.rank("ada", LISTINGS)
        assert (ranking.outcome, ranking.listing_ids) == ("away", LISTINGS)
        extended = client.rank("ada", LISTINGS, extend=1)
        assert extended.outcome == ("ranked" if answer is with_more else "away")
        other.answer = batch
        listed = tuple(map(Candidate, LISTINGS))
        [ranking] = client.rank_batch([Request(user_id="ada", candidates=listed)])
        assert (ranking.outcome, ranking.listing_ids) == ("away", LISTINGS)


def test_pins_are_kept_where_nobody_answers(asking: Callable[..., Any]) -> None:
    client = asking(f"http://127.0.0.1:{free_port()}")

    def order(*pins: int | None) -> list[str]:
        given = [Candidate(f"l{at}", pin=pin) for at, pin in enumerate(pins, 1)]
        results = client.rank("ada", given).results
        assert [result.position for result in results] == list(range(1, len(pins) + 1))
        assert all(result.listing_id == f"l{result.caller_position}" for result in results)
        return [result.listing_id for result in results]

    assert order(None, None, None, 1) == ["l4", "l1", "l2", "l3"]
    assert order(3, None, 2, None) == ["l2", "l3", "l1", "l4"]
    # What a sidecar would have refused.
    assert order(2, 2, 7, 0) == ["l2", "l1", "l3", "l4"]


def test_too_few_answers_to_a_batch_are_none(asking: Callable[..., Any]) -> None:
    def answer(path: str, body: Any) -> Answer:
        return ranked(path, {"requests": body["requests"][1:]})

    told: list[str] = []
    with stand_in(answer) as other:
        client = asking(other.url, on_away=told.append)
        requests = [Request(user_id=user, candidates=(Candidate("l1"),)) for user in USERS[:3]]
        assert [each.outcome for each in client.rank_batch(requests)] == ["away"] * 3
    assert told == [f"{other.url}: the answer is not a sidecar's: 2 answers came to 3 requests"]
    assert client.away == 1


def test_an_answer_that_closes_the_connection_is_read(asking: Callable[..., Any]) -> None:
    def answer(path: str, body: Any) -> Answer:
        status, content, _ = ranked(path, body) if body["candidates"] else problem(413)
        return status, content, {"connection": "close"}

    with stand_in(answer) as other:
        client = asking(other.url)
        for listings in (["l1"], [f"l{number}" for number in range(1000)], ["l1"]):
            ranking = client.rank("ada", listings)
            assert (ranking.outcome, ranking.listing_ids) == ("ranked", listings[::-1])
        with pytest.raises(Refused, match="413"):
            client.rank("ada", [])
        assert client.away == 0


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_the_caller_could_not_do_better_is_not_raised(asking: Callable[..., Any], status: int) -> None:
    with stand_in(lambda path, body: (status, b"busy", {})) as busy:
        assert asking(busy.url).rank("ada", LISTINGS).listing_ids == LISTINGS


@pytest.mark.parametrize("status", [400, 404, 413, 422, 431])
def test_what_the_caller_could_do_better_is_raised(asking: Callable[..., Any], status: int) -> None:
    with stand_in(lambda path, body: problem(status, field="$.k")) as strict:
        with pytest.raises(Refused) as refused:
            asking(strict.url).rank("ada", LISTINGS)
        assert (refused.value.status, refused.value.field, refused.value.detail) == (status, "$.k", "d")


def test_a_connection_that_was_closed_while_idle_is_no_failure(asking: Callable[..., Any]) -> None:
    with stand_in(ranked) as other:
        other.hangs_up = True
        client = asking(other.url)
        for _ in range(5):
            assert client.rank("ada", LISTINGS).outcome == "ranked"
            time.sleep(0.02)
        assert client.away == 0
