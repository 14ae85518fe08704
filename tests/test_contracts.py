"""The committed contracts are what the types say now, and what is really written is valid by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from insession import contracts
from models import bundle
from models.datasets.marketplace import Marketplace
from models.events import Forget, Leave, Tick, Wishlist, encode
from models.listings import collect
from models.partition import Partition
from models.recording import Header, Record, Writer
from models.states import Checkpoint, Memory
from tests.made import START, a_bundle

DOCUMENTS = contracts.documents()


def errors(name: str, value: bytes | str) -> list[str]:
    """What is wrong with a JSON text by the schema of this name."""
    schema = json.loads(DOCUMENTS[contracts.DOCS / "schemas" / f"{name}.json"])
    found = Draft202012Validator(schema).iter_errors(json.loads(value))
    return [f"{error.json_path}: {error.message}" for error in found]


def test_the_committed_contracts_are_what_the_types_say_and_there_is_no_other() -> None:
    assert set(contracts.DOCS.rglob("*.json")) == set(DOCUMENTS), "write them with `make contracts`"
    stale = [path.name for path, content in DOCUMENTS.items() if path.read_bytes() != content]
    assert not stale, "write them with `make contracts`"


@pytest.mark.parametrize("name", list(contracts.SCHEMAS))
def test_every_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(json.loads(DOCUMENTS[contracts.DOCS / "schemas" / f"{name}.json"]))


def test_writing_removes_the_schema_of_what_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contracts, "DOCS", tmp_path)
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "gone.json").write_text("{}")
    contracts.main()
    schemas = {path.stem for path in (tmp_path / "schemas").iterdir()}
    assert schemas == contracts.SCHEMAS.keys()


def test_what_the_worker_reads_and_writes_is_valid() -> None:
    market = Marketplace(1)
    listings = collect(market.listings)
    events = list(market.events(30))
    last = events[-1].timestamp
    events += [
        Leave(event_id="z1", user_id="u", timestamp=last, of="z0", seconds=3.5),
        Wishlist(event_id="z2", user_id="u", timestamp=last, listing_id=listings.ids[0]),
        Forget(event_id="z3", user_id="v", timestamp=last),
        Tick(event_id="z4", timestamp=last + 3_600_000),
    ]
    some = a_bundle(len(listings))
    made = bundle.assemble(
        listings=listings, vectors=some.vectors, ranker=some.ranker, training=some.manifest.training
    )
    partition = Partition(0, bundle=made, states=Memory())
    for offset, event in enumerate(events):
        assert errors("clicks", encode(event)) == []
        key = None if isinstance(event, Tick) else event.user_id.encode()
        partition.apply(offset, event.timestamp, key, encode(event))
    changes = partition.flush()
    assert not changes.dead
    published: dict[str, list[bytes | None]] = {
        "sessions": [value for _, value in changes.sessions],
        "user-histories": list(changes.histories.values()),
        "user-embeddings": list(changes.embeddings.values()),
        "listings": [msgspec.json.encode(listings.get(row)) for row in range(20)],
        "bundle-manifest": [msgspec.json.encode(made.manifest)],
        "user-embeddings-checkpoint": [
            msgspec.json.encode(
                Checkpoint(next_offset=7, watermark=START, cluster="c", topics={"clicks": "t"})
            )
        ],
    }
    for name, values in published.items():
        written = [value for value in values if value is not None]
        assert written, name
        for value in written:
            assert errors(name, value) == []


def test_a_recording_is_valid_whatever_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    with Writer(path, Header(topic="clicks", partitions=2, source="trivago")) as writer:
        headers = (("session", b"s"), ("raw", b"\xff"), ("none", None))
        writer.write(Record(1, 0, START, b"u", headers, b"{}"))
        writer.write(Record(None, None, START, None, (), None))
        writer.write(Record(0, 1, START, b"\xff", (), b"\xfe"))
    first, *lines = path.read_text().splitlines()
    assert errors("recording-header", first) == []
    assert len(lines) == 3
    for line in lines:
        assert errors("recording-line", line) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clicks", {"type": "click", "event_id": "e", "user_id": "u", "timestamp": START}),
        (
            "clicks",
            {"type": "glance", "event_id": "e", "user_id": "u", "timestamp": START, "listing_id": "l"},
        ),
        ("clicks", {"type": "click", "event_id": "", "user_id": "u", "timestamp": START, "listing_id": "l"}),
        ("listings", {"listing_id": "l", "latitude": 91}),
        ("user-embeddings", {"user_id": "u"}),
        ("recording-header", {"format": "other", "version": 1, "topic": "clicks", "partitions": 4}),
    ],
)
def test_what_is_wrong_is_not_valid(name: str, value: dict[str, Any]) -> None:
    assert errors(name, json.dumps(value))
