from __future__ import annotations

import gzip
from datetime import date
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import UserError
from models.listings import Listing
from models.recording import Header, Record, Writer
from models.training import content2vec, vbpr
from models.training.content2vec import Content2Vec
from models.training.listing_files import read_listings
from models.training.run import Run
from models.training.vbpr import Vbpr
from tests.planted import planted

KNOWN = [
    Listing(
        listing_id="a",
        market="Rio",
        type="hotel",
        price=80,
        latitude=-22.9,
        longitude=-43.2,
        attributes={"name": "Casa"},
    ),
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
    row = msgspec.to_builtins(KNOWN[0]) | {"attributes": None, "name": "Casa"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "l.parquet")
    for name in ("l.jsonl", "l.jsonl.gz", "l.csv", "l.csv.gz"):
        assert read_listings(tmp_path / name) == KNOWN
    assert read_listings(tmp_path / "l.parquet") == KNOWN[:1]


def test_ids_that_are_numbers_in_parquet_are_taken_as_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"listing_id": [7, 8], "market": ["Rio", None]}), tmp_path / "l.parquet")
    assert read_listings(tmp_path / "l.parquet") == [
        Listing(listing_id="7", market="Rio"),
        Listing(listing_id="8"),
    ]


def test_other_columns_of_a_parquet_are_attributes(tmp_path: Path) -> None:
    columns = {
        "listing_id": ["a", "b"],
        "attributes": pa.array([[("view", "sea")], None], pa.map_(pa.string(), pa.string())),
        "image": pa.array([[0.1, -1, 2.5], None], pa.list_(pa.float32())),
        "beds": [2, None],
        "rating": [4.5, float("nan")],
        "wifi": [True, False],
        "name": ["Casa", ""],
        "amenities": [["desk", "lift"], []],
        "since": [date(2020, 2, 1), None],
        "fee": [Decimal("9.50"), None],
        "__index_level_0__": [7, 8],
    }
    pq.write_table(pa.table(columns), tmp_path / "l.parquet")
    said = {"view": "sea", "image": "0.1 -1 2.5", "beds": 2.0, "rating": 4.5, "wifi": True, "name": "Casa"}
    said |= {"since": "2020-02-01", "fee": 9.5}
    assert read_listings(tmp_path / "l.parquet") == [
        Listing(listing_id="a", attributes=said | {"amenities": ("desk", "lift")}),
        Listing(listing_id="b", attributes={"wifi": False}),
    ]


def test_other_columns_of_a_csv_are_attributes_of_what_all_their_cells_are(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "l.csv",
        "listing_id,beds,wifi,postcode,floor,none,image",
        "a,2,true,0123,1,,0.1 -1",
        "b,1.5,FALSE,4567,attic,,",
        "c,,,,,,",
    )
    assert read_listings(path) == [
        Listing(
            listing_id="a",
            attributes={"beds": 2.0, "wifi": True, "postcode": "0123", "floor": "1", "image": "0.1 -1"},
        ),
        Listing(
            listing_id="b", attributes={"beds": 1.5, "wifi": False, "postcode": "4567", "floor": "attic"}
        ),
        Listing(listing_id="c"),
    ]


@pytest.mark.parametrize(
    "value", [b"x", {"a": 1}, [[1.0]], [1.0, None], ["a", None], [float("nan")], float("inf")]
)
def test_a_cell_that_can_be_no_attribute_is_refused_with_row_and_column(
    tmp_path: Path, value: object
) -> None:
    pq.write_table(pa.table({"listing_id": ["a", "b"], "odd": [None, value]}), tmp_path / "l.parquet")
    with pytest.raises(UserError, match=r"l\.parquet: row 2: column `odd`: an attribute is a number, a text"):
        read_listings(tmp_path / "l.parquet")


def test_a_cell_that_python_has_no_value_for_is_refused(tmp_path: Path) -> None:
    moment = pa.array([1, 2], pa.timestamp("ns"))
    pq.write_table(pa.table({"listing_id": ["a", "b"], "odd": moment}), tmp_path / "l.parquet")
    with pytest.raises(UserError, match=r"l\.parquet: "):
        read_listings(tmp_path / "l.parquet")


def test_an_attribute_that_is_said_twice_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "l.csv", "listing_id,attributes,pool", 'a,"{""pool"":true}",', "b,{},1")
    assert [listing.attributes for listing in read_listings(path)] == [{"pool": True}, {"pool": 1.0}]
    path = lines(tmp_path / "l.csv", "listing_id,attributes,pool", 'a,"{""pool"":true}",1')
    with pytest.raises(UserError, match="line 2: column `pool`: the column `attributes` has a `pool` too"):
        read_listings(path)


def test_methods_learn_from_columns_of_a_parquet(tmp_path: Path) -> None:
    size, random = 24, np.random.default_rng(1)
    columns = {
        "listing_id": [f"l{row}" for row in range(size)],
        "image": random.normal(size=(size, 4)).astype(np.float32).tolist(),
        "text": [f"a {('sunny', 'quiet', 'lively')[row % 3]} room" for row in range(size)],
    }
    pq.write_table(pa.table(columns), tmp_path / "l.parquet")
    corpus, run = planted(known=read_listings(tmp_path / "l.parquet")), Run(np.random.default_rng(1))
    for vectors in (
        vbpr.train(corpus, Vbpr(attribute="image", dimensions=8, epochs=1), run),
        content2vec.train(corpus, Content2Vec(dimensions=8, epochs=1), run),
    ):
        assert vectors[:size].any(axis=1).all()


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
