"""The client that a search service installs: with a real sidecar, and with stand-ins that are away, slow, broken or elsewhere."""

from __future__ import annotations

import asyncio
import inspect
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import insession_client
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from insession_client import AsyncClient, Candidate, Client, Ranking, Refused, Request, partition_of

from insession.online import Producing
from insession.processes import Process, insession
from insession.running import running
from insession.sidecar import Sidecar
from models import bundle, events, recording
from models.events import Click, encode
from models.recording import Record
from models.topics import Topics
from streams import topics
from streams.broker import Broker, free_port
from tests.made import a_bundle

ROOT = Path(__file__).parent.parent
LISTINGS = [f"l{number}" for number in range(20)]
PARTITIONS = 2

Answer = tuple[int, object, dict[str, str]]


class StandIn:
    """A sidecar that answers as it is told, and keeps what it was asked."""

    def __init__(self, answer: Callable[[str, Any], Answer]) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.hangs_up = False
        """Whether it closes the connection after an answer without saying so."""
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                stand_in.asked.append(self.path)
                stand_in.headers.append({name.lower(): value for name, value in self.headers.items()})
                status, content, headers = stand_in.answer(self.path, json.loads(body) if body else None)
                sent = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)
                if stand_in.hangs_up:
                    self.close_connection = True

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                pass  # a client that did not wait

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def stand_in(answer: Callable[[str, Any], Answer]) -> Iterator[StandIn]:
    made = StandIn(answer)
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


def ranked(path: str, body: Any) -> Answer:
    """The candidates the other way round."""
    if path == "/v1/rank/batch":
        return 200, {"answers": [ranked("", each)[1] for each in body["requests"]], "took_ms": 1.0}, {}
    listed = [candidate["listing_id"] for candidate in body["candidates"]]
    results = [
        {"listing_id": listing, "position": place, "caller_position": len(listed) + 1 - place, "score": 0.5}
        for place, listing in enumerate(reversed(listed), 1)
    ]
    answer = {
        "rank_id": body["user_id"],
        "bundle": "b",
        "variant": "v",
        "propensity": 0.1,
        "outcome": "ranked",
        "state": None,
        "stale": False,
        "took_ms": 0.2,
        "results": results,
    }
    return 200, answer, {}


def problem(status: int, **also: object) -> Answer:
    said = {"type": "urn:insession:problem:x", "title": "t", "status": status, "detail": "d", **also}
    return status, said, {"content-type": "application/problem+json"}


@pytest.fixture(params=[Client, AsyncClient])
def asking(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes a client of each kind, to be used the same way, and closes it."""
    with asyncio.Runner() as runner:
        made: list[Any] = []

        class Awaited:
            def __init__(self, client: AsyncClient) -> None:
                self.client = client

            def __getattr__(self, name: str) -> Any:
                found = getattr(self.client, name)
                if not inspect.iscoroutinefunction(found):
                    return found
                return lambda *args, **named: runner.run(found(*args, **named))

        def make(urls: Any, **named: Any) -> Any:
            client = request.param(urls, **{"timeout": 2.0, **named})
            made.append(Awaited(client) if isinstance(client, AsyncClient) else client)
            return made[-1]

        yield make
        for client in made:
            client.close()


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """A real one that has seen a click of Ada's on l7; its address and the click's offset."""
    folder = tmp_path_factory.mktemp("client")
    bundle.write(folder, a_bundle(40))
    with running(folder, partitions=PARTITIONS) as (client, names, asked):
        now = int(time.time() * 1000)
        click = Click(event_id="c", user_id="ada", timestamp=now, listing_id="l7")
        partition = recording.partition_of(b"ada", PARTITIONS)
        producing = Producing(client, names.clicks)
        producing.produce(partition, Record(partition, None, now, b"ada", (), encode(click)))
        last = producing.last(b"ada")
        assert last is not None
        yield asked.url, last[1]


def test_a_list_is_ranked_by_a_sidecar(asking: Callable[..., Any], sidecar: tuple[str, int]) -> None:
    url, offset = sidecar
    client = asking(url)
    candidates = [Candidate(listing, score=float(-at), price=90.0) for at, listing in enumerate(LISTINGS)]
    ranking = client.rank("ada", candidates, min_offset=offset, deadline_ms=5_000, explain=True, timeout=10.0)
    assert isinstance(ranking, Ranking)
    assert ranking.outcome == "ranked"
    assert ranking.ranked
    assert ranking.listing_ids[0] == "l7"
    assert sorted(ranking.listing_ids) == sorted(LISTINGS)
    first = ranking.results[0]
    assert (first.position, first.caller_position) == (1, 8)
    assert first.contributions is not None
    assert first.score == pytest.approx(sum(first.contributions.values()), abs=1e-4)
    assert ranking.state is not None
    assert ranking.state.offset >= offset

    unknown = client.rank("nobody", LISTINGS)
    assert (unknown.outcome, unknown.ranked, unknown.listing_ids) == ("unknown-user", False, LISTINGS)
    assert client.away == 0


def test_lists_are_extended_pinned_and_ranked_several_at_once(
    asking: Callable[..., Any], sidecar: tuple[str, int]
) -> None:
    url, offset = sidecar
    client = asking(url, timeout=10.0)
    candidates = [*(Candidate(listing) for listing in LISTINGS[:9]), Candidate("l30", pin=1)]
    ranking = client.rank("ada", candidates, min_offset=offset, extend=3, diversity=0.2)
    assert ranking.listing_ids[:2] == ["l30", "l7"]
    added = [result for result in ranking.results if result.retrieved]
    assert len(added) == 3
    assert all(result.caller_position is None for result in added)
    assert (ranking.variant, ranking.propensity) == ("default", 1.0)

    requests = [Request(user_id=user, candidates=tuple(candidates)) for user in ("nobody", "ada", "none")]
    outcomes = [each.outcome for each in client.rank_batch(requests)]
    assert outcomes == ["unknown-user", "ranked", "unknown-user"]


def test_what_was_shown_can_be_logged(asking: Callable[..., Any], sidecar: tuple[str, int]) -> None:
    client = asking(sidecar[0])
    candidates = [Candidate(listing, score=1.5, price=90.0) for listing in LISTINGS]
    ranking = client.rank("ada", candidates)
    event = ranking.event("s1", timestamp=1_700_000_000_000, query="sea", market="Lisbon", shown=5)
    read = events.decode(json.dumps(event).encode(), b"ada")
    assert isinstance(read, events.Search)
    assert [result.listing_id for result in read.results] == ranking.listing_ids[:5]
    assert read.results[0].caller_position == ranking.results[0].caller_position
    assert (read.results[0].caller_score, read.results[0].price) == (1.5, 90.0)
    assert read.ranking is not None
    assert (read.ranking.rank_id, read.ranking.bundle) == (ranking.rank_id, ranking.bundle)
    assert read.ranking.variant == ranking.variant


def test_listings_are_retrieved(asking: Callable[..., Any], sidecar: tuple[str, int]) -> None:
    url, offset = sidecar
    client = asking(url)
    found = client.recommend("ada", k=3, min_offset=offset, exclude_seen=True)
    assert found.outcome == "ranked"
    assert len(found.results) == 3
    assert "l7" not in [result.listing_id for result in found.results]
    near = client.similar("l7", k=4)
    assert len(near.results) == 4
    assert near.results[0].similarity >= near.results[-1].similarity
    assert client.similar("no/such one").outcome == "unknown-listing"
    for_ada = client.similar("l8", k=39, user_id="ada")
    assert for_ada.outcome == "ranked"
    assert for_ada.results[0].score is not None
    unseen = client.similar("l8", k=39, user_id="ada", exclude_seen=True)
    listed = [{result.listing_id for result in each.results} for each in (for_ada, unseen)]
    assert listed[0] - listed[1] == {"l7"}


def test_what_the_caller_got_wrong_is_raised(asking: Callable[..., Any], sidecar: tuple[str, int]) -> None:
    client = asking(sidecar[0])
    with pytest.raises(Refused) as refused:
        client.rank("ada", ["l1", "l2", "l1"])
    assert refused.value.status in (400, 422)
    assert refused.value.field == "$.candidates[2].listing_id"
    with pytest.raises(Refused, match="k"):
        client.similar("l1", k=100_000)
    assert client.away == 0


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
    monkeypatch.setattr(insession_client, "REST_SECONDS", 0.3)
    with stand_in(lambda path, body: problem(503)) as broken:
        client = asking(broken.url)
        for _ in range(10):
            assert client.rank("ada", LISTINGS).outcome == "away"
        assert len(broken.asked) == insession_client.FAILURES
        time.sleep(0.35)
        assert client.rank("ada", LISTINGS).outcome == "away"
        assert client.rank("ada", LISTINGS).outcome == "away"
        assert len(broken.asked) == insession_client.FAILURES + 1
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


@pytest.mark.parametrize("answer", [b"", b"<html>", b'{"outcome": 7}', b'{"outcome": "\xff"}'])
@pytest.mark.parametrize("sidecars", [1, 2])
def test_what_is_no_answer_is_none(asking: Callable[..., Any], answer: bytes, sidecars: int) -> None:
    with stand_in(lambda path, body: (200, answer, {})) as one, stand_in(ranked) as two:
        two.answer = one.answer
        client = asking([one.url, two.url][:sidecars])
        assert client.rank("ada", LISTINGS).outcome == "away"
        assert client.away == 1


def test_a_problem_that_is_no_text_is_raised_all_the_same(asking: Callable[..., Any]) -> None:
    with stand_in(lambda path, body: (400, b'{"status": 400, "detail": "\xff"}', {})) as other:
        with pytest.raises(Refused) as refused:
            asking(other.url).rank("ada", LISTINGS)
        assert refused.value.status == 400


def test_too_few_answers_to_a_batch_are_none(asking: Callable[..., Any]) -> None:
    def answer(path: str, body: Any) -> Answer:
        return ranked(path, {"requests": body["requests"][1:]})

    told: list[str] = []
    with stand_in(answer) as other:
        client = asking(other.url, on_away=told.append)
        requests = [Request(user_id=user, candidates=(Candidate("l1"),)) for user in USERS[:3]]
        assert [each.outcome for each in client.rank_batch(requests)] == ["away"] * 3
    assert told == ["2 answers came to 3 requests"]
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


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422])
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


def test_the_token_the_deadline_and_the_options_are_sent(asking: Callable[..., Any]) -> None:
    sent: list[Any] = []

    def answer(path: str, body: Any) -> Answer:
        sent.append(body)
        return ranked(path, body)

    with stand_in(answer) as other:
        client = asking(other.url, token="secret", timeout=0.5)
        pinned = [Candidate("l1", score=1.0), Candidate("l2", score=0.5, price=80.0, pin=1)]
        ranking = client.rank("ada", pinned, extend=5, diversity=0.3, market="Lisbon", timestamp=7)
        assert other.headers[0]["authorization"] == "Bearer secret"
    deadline = sent[0].pop("deadline_ms")
    assert 200 <= deadline <= 400
    assert sent == [
        {
            "user_id": "ada",
            "candidates": [
                {"listing_id": "l1", "score": 1.0},
                {"listing_id": "l2", "score": 0.5, "price": 80.0, "pin": 1},
            ],
            "timestamp": 7,
            "market": "Lisbon",
            "extend": 5,
            "diversity": 0.3,
        }
    ]
    assert ranking.as_ranking() == {"rank_id": "ada", "bundle": "b", "variant": "v", "propensity": 0.1}


def holding(numbers: list[int], elsewhere: Callable[[int], Answer]) -> Callable[[str, Any], Answer]:
    """A sidecar of four partitions that holds some, and answers for others' users as told."""

    def answer(path: str, body: Any) -> Answer:
        if path == "/v1/partitions":
            return 200, {"partitions": 4, "held": numbers, "peers": {}, "how": "murmur2"}, {}
        users = [each["user_id"] for each in body.get("requests", [body])]
        for user in users:
            number = recording.partition_of(user.encode(), 4)
            if number not in numbers:
                return elsewhere(number)
        return ranked(path, body)

    return answer


def lost(number: int) -> Answer:
    return problem(421, partition=number)


USERS = [f"user-{number}" for number in range(24)]


def test_each_user_is_asked_for_where_they_are(asking: Callable[..., Any]) -> None:
    with stand_in(holding([0, 3], lost)) as one, stand_in(holding([1, 2], lost)) as two:
        client = asking([one.url, two.url])
        for user in USERS:
            ranking = client.rank(user, LISTINGS)
            assert (ranking.outcome, ranking.rank_id) == ("ranked", user)
        asked = one.asked + two.asked
        assert asked.count("/v1/partitions") == 2
        assert len(asked) == 2 + len(USERS)
        assert min(len(one.asked), len(two.asked)) > 1


def test_a_batch_is_parted_by_who_holds_the_users(asking: Callable[..., Any]) -> None:
    with stand_in(holding([0, 3], lost)) as one, stand_in(holding([1, 2], lost)) as two:
        client = asking([one.url, two.url])
        requests = [Request(user_id=user, candidates=(Candidate("l1"), Candidate("l2"))) for user in USERS]
        rankings = client.rank_batch(requests)
        assert [ranking.rank_id for ranking in rankings] == USERS
        assert all(ranking.listing_ids == ["l2", "l1"] for ranking in rankings)
        assert one.asked == two.asked == ["/v1/partitions", "/v1/rank/batch"]
        assert client.rank_batch([]) == []


def test_a_partition_that_changes_hands_is_found_again(
    asking: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(insession_client, "MISSING_SECONDS", 0.0)
    with stand_in(holding([0, 1, 2], lost)) as one, stand_in(holding([3], lost)) as two:
        client = asking([one.url, two.url])
        assert all(client.rank(user, LISTINGS).ranked for user in USERS)
        one.answer, two.answer = holding([0], lost), holding([1, 2, 3], lost)
        assert all(client.rank(user, LISTINGS).ranked for user in USERS)
        assert client.away == 0


def test_a_redirect_is_followed(asking: Callable[..., Any]) -> None:
    with stand_in(holding([0, 1, 2, 3], lost)) as two:
        there = (307, {}, {"location": f"{two.url}/v1/rank"})
        with stand_in(holding([], lambda number: there)) as one:
            client = asking(one.url)
            assert client.rank("ada", LISTINGS).ranked
            assert (one.asked, two.asked) == (["/v1/rank"], ["/v1/rank"])


def test_redirects_in_a_circle_end(asking: Callable[..., Any]) -> None:
    with stand_in(holding([], lost)) as one, stand_in(holding([], lost)) as two:
        one.answer = lambda path, body: (307, {}, {"location": f"{two.url}/v1/rank"})
        two.answer = lambda path, body: (307, {}, {"location": f"{one.url}/v1/rank"})
        assert asking(one.url).rank("ada", LISTINGS).outcome == "away"


@pytest.mark.parametrize(
    "location",
    [
        "/elsewhere",
        "//",
        "http://",
        "http://[",
        "http://there:port/",
        "http://a..b/",
        "http://a b/",
        "ftp://there/",
    ],
)
def test_a_redirect_to_nowhere_ends(asking: Callable[..., Any], location: str) -> None:
    with stand_in(lambda path, body: (307, {}, {"location": location})) as other:
        client = asking(other.url)
        assert client.rank("ada", LISTINGS).outcome == "away"
        assert client.rank("ada", LISTINGS).outcome == "away"
        assert other.asked == ["/v1/rank"] * 2


def test_an_address_that_can_not_be_one_is_away(asking: Callable[..., Any]) -> None:
    assert asking("http://127.0.0.1:port").rank("ada", LISTINGS).outcome == "away"


def test_another_that_holds_the_user_is_asked_where_one_is_away(asking: Callable[..., Any]) -> None:
    everything = holding([0, 1, 2, 3], lost)
    with stand_in(everything) as one, stand_in(everything) as two:
        client = asking([one.url, two.url, f"http://127.0.0.1:{free_port()}"])
        assert all(client.rank(user, LISTINGS).ranked for user in USERS)
        assert abs(len(one.asked) - len(two.asked)) <= 2
        one.answer = lambda path, body: problem(503)
        assert all(client.rank(user, LISTINGS).ranked for user in USERS)
        assert client.away == 0


def test_two_sidecars_that_hold_some_partitions_each_are_one_to_the_client(
    embedded: Broker, tmp_path: Path
) -> None:
    bundle.write(tmp_path / "bundles", a_bundle(40))
    names = Topics("client-held-")
    kafka: topics.Client = {"bootstrap.servers": embedded.bootstrap}
    topics.ensure(kafka, names, partitions=4, retention_ms=-1)
    common = ("--bootstrap", embedded.bootstrap, "--topic-prefix", names.prefix)
    common += ("--bundle", str(tmp_path / "bundles"), "--port")
    ports = [free_port(), free_port()]
    first, second = [f"http://127.0.0.1:{port}" for port in ports]
    with ExitStack() as stack:

        def serve(at: int, *flags: str) -> AbstractContextManager[Process]:
            here = (*common, str(ports[at]), "--state", str(tmp_path / f"{at}"), *flags)
            return insession("serve", *here, ready="serving on ", log=tmp_path / f"{at}.log")

        stack.enter_context(serve(0, "--hold", "0-1", "--peer", f"{second}=2-3"))
        other = stack.enter_context(ExitStack())
        other.enter_context(serve(1, "--hold", "2-3"))
        held = {user for user in USERS if partition_of(user, 4) < 2}
        assert 0 < len(held) < len(USERS)
        for url in (first, second):
            with closing(Sidecar(url)) as asked:
                asked.wait_until_ready()
        with Client([first, second], timeout=10.0) as client:
            assert {client.rank(user, LISTINGS).outcome for user in USERS} == {"unknown-user"}
            requests = [Request(user_id=user, candidates=(Candidate("l1"),)) for user in USERS]
            assert {each.outcome for each in client.rank_batch(requests)} == {"unknown-user"}
        # One knows of the other, which knows of nobody.
        with Client(first, timeout=10.0) as client:
            assert {client.rank(user, LISTINGS).outcome for user in USERS} == {"unknown-user"}
        with Client(second, timeout=10.0) as client:
            assert {user for user in USERS if client.rank(user, LISTINGS).outcome == "away"} == held
        with Client([first, second], timeout=10.0) as client:
            client.rank(USERS[0], LISTINGS)
            other.close()
            answered = {user for user in USERS if client.rank(user, LISTINGS).outcome != "away"}
            assert answered == held


def test_many_threads_share_a_client() -> None:
    with stand_in(ranked) as other, Client(other.url, timeout=10.0) as client:

        def ask(number: int) -> bool:
            listings = [f"l{number}-{at}" for at in range(10)]
            ranking = client.rank(f"u{number}", listings)
            return ranking.rank_id == f"u{number}" and ranking.listing_ids == listings[::-1]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(200)))


def test_many_tasks_share_a_client() -> None:
    async def ask(url: str) -> list[str | None]:
        async with AsyncClient(url, timeout=10.0) as client:
            asked = (client.rank(f"u{number}", LISTINGS) for number in range(50))
            return [ranking.rank_id for ranking in await asyncio.gather(*asked)]

    with stand_in(ranked) as other:
        assert asyncio.run(ask(other.url)) == [f"u{number}" for number in range(50)]


@given(st.text(min_size=1, max_size=40), st.integers(1, 10_000))
def test_a_users_partition_is_kafkas(user: str, partitions: int) -> None:
    assert partition_of(user, partitions) == recording.partition_of(user.encode(), partitions)


def test_an_address_is_a_url() -> None:
    for wrong in ("127.0.0.1:8080", [], ["ftp://x"]):
        with pytest.raises(ValueError, match="http"):
            Client(wrong)


def test_both_clients_ask_alike() -> None:
    for name in ("__init__", "rank", "rank_batch", "recommend", "similar"):
        sync, other = getattr(Client, name), getattr(AsyncClient, name)
        assert inspect.signature(sync) == inspect.signature(other)


@pytest.mark.parametrize(
    ("mine", "schema", "not_sent"),
    [
        (insession_client.Request, "RankRequest", set()),
        (insession_client.Candidate, "Candidate", set()),
        (insession_client.State, "UserState", set()),
        (insession_client.Ranked, "RankedListing", set()),
        (insession_client.Ranking, "RankResponse", {"user_id", "given"}),
        (insession_client.Recommended, "Recommended", set()),
        (insession_client.Recommendation, "RecommendResponse", set()),
        (insession_client.Similar, "Similar", set()),
        (insession_client.SimilarListings, "SimilarResponse", set()),
        (insession_client._Problem, "Problem", set()),
        (insession_client._Partitions, "Partitions", set()),
        (insession_client._BatchAnswer, "BatchResponse", set()),
    ],
)
def test_every_field_is_one_of_the_apis(mine: type[msgspec.Struct], schema: str, not_sent: set[str]) -> None:
    schemas = json.loads((ROOT / "docs" / "openapi.json").read_text())["components"]["schemas"]
    assert set(mine.__struct_fields__) - not_sent <= schemas[schema]["properties"].keys()


def test_every_field_of_a_question_is_one_of_the_apis(asking: Callable[..., Any]) -> None:
    api = json.loads((ROOT / "docs" / "openapi.json").read_text())
    sent: list[Any] = []

    def answer(path: str, body: Any) -> Answer:
        sent.append(body)
        return problem(503)

    with stand_in(answer) as other:
        client = asking(other.url)
        client.recommend(
            "ada", k=3, market="m", exclude_seen=True, timestamp=7, min_offset=0, partition=0, explain=True
        )
        client.similar("l1", k=3, market="m", user_id="ada", exclude_seen=True)
    assert sent[0].keys() == api["components"]["schemas"]["RecommendRequest"]["properties"].keys()
    parameters = api["paths"]["/v1/similar/{listing_id}"]["get"]["parameters"]
    given = parse_qs(urlsplit(other.asked[1]).query)
    assert given.keys() == {each["name"] for each in parameters if each["in"] == "query"}


def test_installed_it_is_typed_and_needs_none_of_the_rooms_and_not_aiohttp(tmp_path: Path) -> None:
    source = shutil.copytree(
        ROOT / "serving" / "client",
        tmp_path / "source",
        ignore=shutil.ignore_patterns("__pycache__", "build"),
    )
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
    installed = subprocess.run(
        [*pip, "--target", str(tmp_path / "there"), str(source)], capture_output=True, text=True, check=False
    )
    assert installed.returncode == 0, installed.stderr
    assert (tmp_path / "there" / "insession_client" / "py.typed").exists()
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'there')!r}); import insession_client;"
        "insession_client.Client('http://127.0.0.1:1').rank('u', ['a']);"
        "print(sorted({name.partition('.')[0] for name in sys.modules}"
        "& {'insession', 'models', 'streams', 'serving', 'aiohttp', 'starlette', 'numpy', 'confluent_kafka'}))"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False, cwd="/"
    )
    assert ran.stdout.strip() == "[]", ran.stderr
