"""What docs/sidecar.md says is tried: its blocks are pasted beside a sidecar that runs, and it names what there is."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Producer

from insession import contracts
from insession.online import Producing
from insession.running import running
from models import bundle, listings, ranker
from models.bundle import Training
from models.events import Click, encode
from models.listings import Listing
from models.recording import Record, partition_of
from streams.reader import reader
from tests.made import unit
from tests.path import until
from tests.test_docs import VERBS, blocks

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "sidecar.md").read_text(encoding="utf-8")
CALLING = TEXT.split("## Calling it")[1].split("## What to log")[0]
ADDRESS, BROKER = "http://127.0.0.1:8080", "kafka:9092"
PARTITIONS = 2
FOUND = ["lisbon-174", "lisbon-093", "lisbon-070"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Any]]:
    """A sidecar that knows of a click of Ada's on lisbon-070; its address, the broker's, and how to read `clicks`."""
    folder = tmp_path_factory.mktemp("docs")
    known = [Listing(listing_id=f"lisbon-{number:03}", market="Lisbon") for number in range(200)]
    made = bundle.assemble(
        listings=listings.collect(known),
        vectors=unit(200, 8),
        ranker=ranker.default(),
        training=Training(source="embeddings", data="made"),
    )
    bundle.write(folder, made)
    with running(folder, partitions=PARTITIONS) as (client, names, sidecar):
        now = int(time.time() * 1000)
        partition = partition_of(b"ada", PARTITIONS)
        click = Click(event_id="c", user_id="ada", timestamp=now, listing_id="lisbon-070")
        producing = Producing(client, names.clicks)
        producing.produce(partition, Record(partition, None, now, b"ada", (), encode(click)))
        producing.last(b"ada")
        until(lambda: curl(sidecar.url)["outcome"] == "ranked")

        def searches() -> list[dict[str, Any]]:
            with reader(client) as source:
                values = [
                    message.value() or b""
                    for messages, _ in source.read(names.clicks, partition)
                    for message in messages
                ]
            return [event for event in map(json.loads, values) if event["type"] == "search"]

        yield sidecar.url, str(client["bootstrap.servers"]), searches


def curl(url: str) -> dict[str, Any]:
    """The answer to the block that calls curl."""
    [block] = [block for block in blocks(CALLING, "") if block.startswith("curl")]
    assert ADDRESS in block
    assert "--max-time 1 " in block
    pasted = block.replace(ADDRESS, url).replace("--max-time 1 ", "--max-time 20 ")
    pasted = pasted.replace('"deadline_ms": 40', '"deadline_ms": 5000')
    ran = subprocess.run(["bash", "-ec", pasted], capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


def python(number: int, url: str, bootstrap: str, **given: object) -> dict[str, Any]:
    """What a block of Python defines, with the addresses of what runs here and some time."""
    block = blocks(CALLING, "python")[number]
    assert ADDRESS in block
    pasted = block.replace(ADDRESS, url).replace(BROKER, bootstrap).replace("timeout=0.05", "timeout=10")
    space: dict[str, Any] = {**given}
    exec(pasted, space)
    return space


def test_the_service_calls_it_after_its_own_query(place: tuple[str, str, Any]) -> None:
    url, bootstrap, searches = place
    found = [SimpleNamespace(id=name, score=7.0 - at, price=90.0) for at, name in enumerate(FOUND)]
    made = python(0, url, bootstrap, own_search=lambda query: found)
    ids, search_id = made["search"]("ada", "sea")
    made["sidecar"].close()
    clicks = made["clicks"]
    assert isinstance(clicks, Producer)
    clicks.flush()
    assert ids[0] == "lisbon-070"
    assert sorted(ids) == sorted(FOUND)
    # It stands where the user's other events stand, and says who ranked it.
    [event] = [event for event in searches() if event["search_id"] == search_id]
    assert [result["listing_id"] for result in event["results"]] == ids
    assert event["results"][0]["caller_position"] == 3
    assert event["ranking"]["rank_id"]


def test_the_same_with_asyncio(place: tuple[str, str, Any]) -> None:
    url, bootstrap, _ = place
    outcome, ids = asyncio.run(python(1, url, bootstrap)["search_too"]("ada", FOUND))
    assert (outcome, ids[0]) == ("ranked", "lisbon-070")


def test_curl_is_answered(place: tuple[str, str, Any]) -> None:
    assert curl(place[0])["results"][0]["listing_id"] == "lisbon-070"


def test_every_option_that_is_shown_exists() -> None:
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", TEXT)) - {"--max-time"}
    options = {name for param in VERBS["insession serve"].params for name in param.opts}
    assert shown <= options


def test_every_metric_that_is_named_exists() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "serving").glob("*.py"))
    named = {
        name.removesuffix("_bucket").removesuffix("_count") for name in re.findall(r"insession_[a-z_]+", TEXT)
    }
    named -= {"insession_client"}
    assert len(named) > 5
    assert {name for name in named if f'"{name}"' not in sources} == set()


def test_every_outcome_is_described() -> None:
    schema = contracts.documents()[contracts.DOCS / "openapi.json"]
    [*listed] = json.loads(schema)["components"]["schemas"]["RankResponse"]["properties"]["outcome"]["anyOf"]
    outcomes = {outcome for each in listed for outcome in each["enum"]}
    table = TEXT.split("| `outcome` |")[1].split("## ")[0]
    assert "ranked" in outcomes
    assert {outcome for outcome in outcomes if f"`{outcome}`" not in table} == set()
