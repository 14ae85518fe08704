"""The client that a search service installs: with a real sidecar, and what it says and sends."""

from __future__ import annotations

import asyncio
import inspect
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import insession_client
import msgspec
import pytest
from insession_client import AsyncClient, Candidate, Client, Ranking, Refused, Request
from insession_client.asking import BatchAnswer
from insession_client.problems import Problem
from insession_client.routes import Partitions

from insession.online import Producing
from insession.running import running
from models import bundle, events, recording
from models.events import Click, encode
from models.recording import Record
from tests.made import a_bundle
from tests.stand_in import LISTINGS, Answer, problem, ranked, stand_in

ROOT = Path(__file__).parent.parent
PARTITIONS = 2


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


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_refused(asking: Callable[..., Any], number: float) -> None:
    """Sent as null it would be no score at all, and all other scores with it."""
    with stand_in(ranked) as other:
        client = asking(other.url)
        for wrong, field in (
            (Candidate("l2", score=number), "score"),
            (Candidate("l2", price=number), "price"),
        ):
            with pytest.raises(Refused) as refused:
                client.rank("ada", ["l1", wrong])
            assert (refused.value.status, refused.value.field) == (400, f"$.candidates[1].{field}")
            requests = [Request(user_id="ada", candidates=given) for given in ((Candidate("l1"),), (wrong,))]
            with pytest.raises(Refused) as refused:
                client.rank_batch(requests)
            assert refused.value.field == f"$.requests[1].candidates[0].{field}"
        assert other.asked == []
        huge = [Candidate(listing, score=1.7e308, price=0.0) for listing in LISTINGS]
        assert client.rank("ada", huge).ranked


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


def test_what_takes_long_is_imported_before_a_call() -> None:
    program = (
        "import sys; from insession_client import AsyncClient; assert 'aiohttp' not in sys.modules;"
        "AsyncClient('http://127.0.0.1:1'); before = set(sys.modules);"
        "import asyncio; asyncio.run(AsyncClient('http://127.0.0.1:1').rank('u', ['a']));"
        "print('aiohttp' in before, [each for each in set(sys.modules) - before if each.startswith(('aiohttp', 'yarl'))])"
    )
    environment = {"PYTHONPATH": str(ROOT / "serving" / "client")}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment
    )
    assert ran.stdout.strip() == "True []", ran.stderr


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
        (Problem, "Problem", set()),
        (Partitions, "Partitions", set()),
        (BatchAnswer, "BatchResponse", set()),
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
