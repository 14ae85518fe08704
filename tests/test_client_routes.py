"""The client finds who holds a user: by partitions, redirects and addresses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from insession_client import AsyncClient, Candidate, Client, Request, partition_of, routes

from insession.processes import Process, insession
from insession.sidecar import Sidecar
from models import bundle, recording
from models.topics import Topics
from streams import topics
from streams.broker import Broker, free_port
from tests.made import a_bundle
from tests.stand_in import LISTINGS, USERS, holding, lost, problem, ranked, stand_in


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
    monkeypatch.setattr(routes, "MISSING_SECONDS", 0.0)
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


def test_who_holds_a_user_is_asked_where_a_redirect_told_of_several(asking: Callable[..., Any]) -> None:
    with stand_in(holding([2, 3], lost)) as two:
        there = (307, {}, {"location": f"{two.url}/v1/rank"})
        with stand_in(holding([0, 1], lambda number: there, peers={two.url: [2, 3]})) as one:
            client = asking(one.url)
            assert all(client.rank(user, LISTINGS).ranked for user in USERS)
            assert client.away == 0
            # One redirect, and then each is asked at once.
            assert len(one.asked + two.asked) == len(USERS) + 2
            assert one.asked.count("/v1/partitions") == 1


@pytest.mark.parametrize("listed", ["one", "one and one that is away"])
def test_a_batch_is_parted_where_a_sidecar_says_who_holds_the_others(
    asking: Callable[..., Any], listed: str
) -> None:
    requests = [Request(user_id=user, candidates=(Candidate("l1"), Candidate("l2"))) for user in USERS]
    with stand_in(holding([2, 3], lost)) as two, stand_in(ranked) as one:
        one.answer = holding([0, 1], lost, peers={two.url: [2, 3], "nonsense": [2]})
        client = asking([one.url] if listed == "one" else [one.url, f"http://127.0.0.1:{free_port()}"])
        rankings = client.rank_batch(requests)
        assert [(ranking.outcome, ranking.rank_id) for ranking in rankings] == [
            ("ranked", user) for user in USERS
        ]
        del one.asked[:], two.asked[:]
        assert all(ranking.ranked for ranking in client.rank_batch(requests))
        assert one.asked == two.asked == ["/v1/rank/batch"]
        assert client.away == 0


def test_of_a_batch_stays_not_held_what_nobody_holds(asking: Callable[..., Any]) -> None:
    requests = [Request(user_id=user, candidates=(Candidate("l1", pin=2), Candidate("l2"))) for user in USERS]
    with stand_in(holding([0, 1], lost)) as one:
        client = asking(one.url)
        rankings = client.rank_batch(requests)
        expected = ["ranked" if partition_of(user, 4) < 2 else "not-held" for user in USERS]
        assert [ranking.outcome for ranking in rankings] == expected
        assert one.asked == ["/v1/rank/batch", "/v1/partitions"]


def test_redirects_in_a_circle_end(asking: Callable[..., Any]) -> None:
    with stand_in(holding([], lost)) as one, stand_in(holding([], lost)) as two:
        one.answer = lambda path, body: (307, {}, {"location": f"{two.url}/v1/rank"})
        two.answer = lambda path, body: (307, {}, {"location": f"{one.url}/v1/rank"})
        assert asking(one.url).rank("ada", LISTINGS).outcome == "away"


@pytest.mark.parametrize(
    "location",
    [
        "/elsewhere",
        "/v1/rank",
        "//",
        "http://",
        "http://[/v1/rank",
        "http://there:port/v1/rank",
        "http://a..b/v1/rank",
        "http://a b/v1/rank",
        "http://login.example/",
        "http://a:b@127.0.0.1/v1/rank",
        "ftp://there/v1/rank",
    ],
)
def test_a_redirect_to_nowhere_ends(asking: Callable[..., Any], location: str) -> None:
    with stand_in(lambda path, body: (307, {}, {"location": location})) as other:
        client = asking(other.url)
        assert client.rank("ada", LISTINGS).outcome == "away"
        assert client.rank("ada", LISTINGS).outcome == "away"
        assert [path for path in other.asked if path != "/v1/partitions"] == ["/v1/rank"] * 2


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
            assert {each.outcome for each in client.rank_batch(requests)} == {"unknown-user"}
        with Client(first, timeout=10.0) as client:
            assert {client.rank(user, LISTINGS).outcome for user in USERS} == {"unknown-user"}
        with Client(second, timeout=10.0) as client:
            assert {user for user in USERS if client.rank(user, LISTINGS).outcome == "away"} == held
        with Client([first, second], timeout=10.0) as client:
            client.rank(USERS[0], LISTINGS)
            other.close()
            answered = {user for user in USERS if client.rank(user, LISTINGS).outcome != "away"}
            assert answered == held


@given(st.text(min_size=1, max_size=40), st.integers(1, 10_000))
def test_a_users_partition_is_kafkas(user: str, partitions: int) -> None:
    assert partition_of(user, partitions) == recording.partition_of(user.encode(), partitions)


def test_an_address_is_a_url() -> None:
    for kind in (Client, AsyncClient):
        for wrong in (
            "127.0.0.1:8080",
            [],
            ["ftp://x"],
            "http://",
            "http:///v1",
            "http://x/?a=b",
            "http://x#y",
            "http://a b",
            "http://x/\x00",
        ):
            with pytest.raises(ValueError, match="http"):
                kind(wrong)
        with pytest.raises(ValueError, match="token") as refused:
            kind("http://user:secret@127.0.0.1:8080")
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize("base", ["/team/insession", "/team/insession/", "/a%2Fb"])
def test_an_address_may_have_a_path(asking: Callable[..., Any], base: str) -> None:
    path = base.rstrip("/")
    with stand_in(lambda asked, body: ranked(asked.removeprefix(path), body)) as other:
        client = asking(other.url + base)
        assert client.rank("ada", LISTINGS).ranked
        assert client.rank_batch([Request(user_id="ada", candidates=(Candidate("l1"),))])[0].ranked
        assert other.asked == [f"{path}/v1/rank", f"{path}/v1/rank/batch"]
        # So may a peer's.
        there = (307, {}, {"location": f"{other.url}{path}/v1/rank"})
        with stand_in(lambda asked, body: there) as one:
            assert asking(one.url).rank("ada", LISTINGS).ranked
        assert other.asked[-1] == f"{path}/v1/rank"


@pytest.mark.parametrize("listing", ["..", ".", "a/../b", "%2e%2e", "a b?c#d", "é/v1/similar/x"])
def test_a_listing_in_a_path_is_asked_for_as_it_is(asking: Callable[..., Any], listing: str) -> None:
    with stand_in(lambda path, body: (200, {"listing_id": listing, "outcome": "nearest"}, {})) as two:
        client = asking(two.url)
        assert client.similar(listing, k=3).outcome == "nearest"
        asked = f"/v1/similar/{quote(listing, safe='')}?k=3"
        assert two.asked == [asked]
        # A sidecar that redirects may write it in another way.
        location = f"{two.url}/v1/similar/{quote(listing)}?k=3&user_id=ada"
        with stand_in(lambda path, body: (307, {}, {"location": location})) as one:
            assert asking(one.url).similar(listing, k=3).outcome == "nearest"
        assert two.asked == [asked] * 2
