from __future__ import annotations

import gzip
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import UserError
from models.listings import Listing
from models.recording import Header, Record, Writer
from models.training.listing_files import read_listings

KNOWN = [
    Listing(listing_id="a", market="Rio", type="hotel", price=80, latitude=-22.9, longitude=-43.2),
    Listing(listing_id="b", market="Lisbon", attributes={"pool": True, "rooms": 2.0}),
]
CSV = """listing_id,market,type,price,latitude,longitude,attributes,name
a,Rio,hotel,80,-22.9,-43.2,,Casa
b,Lisbon,,,,,"{""pool"":true,""rooms"":2.0}",
"""


def lines(path: Path, *texts: str) -> Path:
    path.write_text("".join(text + "\n" for text in texts))
    return path


def test_json_lines_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    encoded = [msgspec.json.encode(listing).decode() for listing in KNOWN]
    plain = lines(tmp_path / "l.jsonl", *encoded)
    (tmp_path / "l.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "l.csv").write_text(CSV)
    (tmp_path / "l.csv.gz").write_bytes(gzip.compress(CSV.encode("utf-8-sig")))
    rows = [msgspec.to_builtins(listing) | {"name": "ignored"} for listing in KNOWN]
    pq.write_table(pa.Table.from_pylist([rows[0] | {"attributes": None}]), tmp_path / "l.parquet")
    for name in ("l.jsonl", "l.jsonl.gz", "l.csv", "l.csv.gz"):
        assert read_listings(tmp_path / name) == KNOWN
    assert read_listings(tmp_path / "l.parquet") == KNOWN[:1]


def test_ids_that_are_numbers_in_parquet_are_taken_as_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"listing_id": [7, 8], "market": ["Rio", None]}), tmp_path / "l.parquet")
    assert read_listings(tmp_path / "l.parquet") == [
        Listing(listing_id="7", market="Rio"),
        Listing(listing_id="8"),
    ]


def test_of_a_recording_the_last_record_of_a_listing_counts(tmp_path: Path) -> None:
    values = [("a", KNOWN[1]), ("b", KNOWN[1]), ("a", KNOWN[0]), ("c", Listing(listing_id="c")), ("c", None)]
    for name in ("l.jsonl.zst", "l.jsonl"):
        with Writer(tmp_path / name, Header(topic="listings", partitions=1)) as writer:
            for key, listing in values[1:]:
                value = None if listing is None else msgspec.json.encode(listing)
                writer.write(Record(0, None, 0, key.encode(), (), value))
        assert sorted(read_listings(tmp_path / name), key=lambda one: one.listing_id) == KNOWN


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.jsonl", '{"listing_id":"a"}\n{"listing_id":""}', r"l.jsonl:2: not a listing: .*\$.listing_id"),
        ("l.jsonl", '{"listing_id":"a"}\n{"listing_id":"a"}', "line 2: listing `a` stands there twice"),
        ("l.jsonl", "{", "l.jsonl:1: not a listing"),
        ("l.jsonl", '{"listing_id":"a","price":-1}', r"\$.price"),
        ("l.csv", "id,market\n1,Rio", "l.csv:1: no column `listing_id`; it has id, market"),
        ("l.csv", "", "no column `listing_id`"),
        ("l.csv", "listing_id,price\na,cheap", r"line 2: .*\$.price"),
        ("l.csv", "listing_id,price\na,1,2", "l.csv:2: not as many cells"),
        ("l.csv", "listing_id,price\na", "l.csv:2: not as many cells"),
        ("l.csv", "listing_id,latitude\na,91", r"line 2: .*\$.latitude"),
        ("l.csv", "listing_id,price\n,3", "line 2: .*missing required field `listing_id`"),
        ("l.csv", "listing_id,attributes\na,{", "not CSV in UTF-8"),
        ("l.csv.gz", "listing_id\na", "can be read"),
        ("l.parquet", "listing_id", "not a parquet file"),
        ("l.txt", "a", "a listings file is .parquet"),
    ],
)
def test_a_wrong_file_is_refused_with_file_and_line(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_listings(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_parquet_is_refused_with_row_or_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "l.parquet")
    with pytest.raises(UserError, match="no column `listing_id`; it has id"):
        read_listings(tmp_path / "l.parquet")
    pq.write_table(pa.table({"listing_id": ["a", "b"], "price": ["1", "2"]}), tmp_path / "l.parquet")
    with pytest.raises(UserError, match=r"row 1: .*\$.price"):
        read_listings(tmp_path / "l.parquet")


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_listings(tmp_path / "l.csv")
    with pytest.raises(UserError, match="not a file"):
        read_listings(tmp_path)


def test_a_record_of_another_topic_is_refused(tmp_path: Path) -> None:
    with Writer(tmp_path / "l.jsonl.zst", Header(topic="clicks", partitions=1)) as writer:
        writer.write(Record(0, None, 0, b"u", (), b'{"type":"click"}'))
    with pytest.raises(UserError, match=r"l\.jsonl\.zst:2: not a listing, on topic `clicks`"):
        read_listings(tmp_path / "l.jsonl.zst")
