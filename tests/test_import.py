from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from insession.import_ import FORMATS
from insession.main import main
from models.events import decode
from models.listings import Listing, decode_record
from models.recording import read
from models.training.listing_files import read_listings

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `insession import` with arguments; gives exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["insession", "import", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else 0, output.out, output.err

    return run


COLUMNS = (
    "user_id,session_id,timestamp,step,action_type,reference,platform,city,device,current_filters,impressions"
)


@pytest.fixture
def hotels(tmp_path: Path) -> Path:
    path = tmp_path / "train.csv"
    path.write_text(
        f"{COLUMNS}\n"
        "u1,s1,1541030403,2,clickout item,33,BR,Rio,,,31|33\n"
        "u2,s2,1541030402,1,filter selection,Spa,BR,Rio,,,\n"
        "u1,s1,1541030401,1,interaction item info,31,BR,Rio,,,\n"
    )
    return path


def test_the_summary_tells_what_was_imported(run: Run, hotels: Path, tmp_path: Path) -> None:
    out = tmp_path / "rio.jsonl.zst"
    code, output, _ = run("trivago", hotels, "--out", out, "--partitions", 2, "--json")
    assert code == 0
    assert json.loads(output) == {
        "format": "trivago",
        "recording": str(out),
        "records": 3,
        "partitions": 2,
        "events": {"click": 2, "search": 1},
        "users": 1,
        "first": 1541030401000,
        "last": 1541030403000,
        "skipped": {"filter selection: not about an item": 1},
        "listings": None,
    }
    code, output, _ = run("trivago", hotels, "--out", out)
    assert "3 records on 4 partitions" in output
    assert "1 left out: filter selection" in output


def test_the_recording_is_in_time_order_and_says_what_it_is(run: Run, hotels: Path, tmp_path: Path) -> None:
    out = tmp_path / "rio.jsonl.zst"
    run("trivago", hotels, "--out", out, "--partitions", 2)
    header, records = read(out)
    assert (header.topic, header.partitions, header.source) == ("clicks", 2, "trivago")
    found = [(record.timestamp, json.loads(record.value or b"")["type"]) for record in records]
    assert found == [(1541030401000, "click"), (1541030403000, "search"), (1541030403000, "click")]


def test_metadata_gives_a_listings_file_beside_the_recording(run: Run, hotels: Path, tmp_path: Path) -> None:
    metadata = tmp_path / "item_metadata.csv"
    metadata.write_text("item_id,properties\n31,WiFi|Hostel\n")
    _, output, _ = run(
        "trivago", hotels, "--metadata", metadata, "--out", tmp_path / "rio.jsonl.zst", "--json"
    )
    listings = tmp_path / "rio.listings.jsonl"
    assert json.loads(output)["listings"] == {"file": str(listings), "number": 2}
    assert [json.loads(line)["listing_id"] for line in listings.read_text().splitlines()] == ["31", "33"]


def test_the_marketplace_is_imported_without_a_file(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "sim.jsonl.zst"
    code, output, _ = run("marketplace", "--visits", 30, "--seed", 1, "--out", out, "--json")
    assert code == 0
    assert json.loads(output)["events"]["search"] > 30
    lines = (tmp_path / "sim.listings.jsonl").read_bytes().splitlines()
    assert len([msgspec.json.decode(line, type=Listing) for line in lines]) == 1_500
    first = out.read_bytes()
    run("marketplace", "--visits", 30, "--seed", 1, "--out", out)
    assert out.read_bytes() == first
    run("marketplace", "--visits", 30, "--seed", 2, "--out", out)
    assert out.read_bytes() != first


def test_a_marketplace_has_the_size_and_the_days_that_were_asked_for(run: Run, tmp_path: Path) -> None:
    flags = ["--visits", 400, "--listings", 260, "--markets", 3, "--start", "2026-03-01", "--days", 10]
    code, output, _ = run("marketplace", *flags, "--out", tmp_path / "sim.jsonl.zst", "--json")
    assert code == 0
    report = json.loads(output)
    assert report["listings"]["number"] == 260
    lines = (tmp_path / "sim.listings.jsonl").read_bytes().splitlines()
    listings = [msgspec.json.decode(line, type=Listing) for line in lines]
    assert {listing.market for listing in listings} == {"Lisbon", "Barcelona", "Vienna"}
    assert min(str(listing.attributes["since"]) for listing in listings) == "2026-03-01T00:00:00.000+00:00"
    start, day = 1_772_323_200_000, 86_400_000
    assert start <= report["first"] < start + day
    assert start + 8 * day < report["last"] < start + 12 * day
    vectors = read_vectors(tmp_path / "sim.listings.jsonl")
    assert vectors.shape == (260, 16)


def read_vectors(path: Path) -> np.ndarray:
    listings = [msgspec.json.decode(line, type=Listing) for line in path.read_bytes().splitlines()]
    return np.array([[float(part) for part in str(each.attributes["image"]).split()] for each in listings])


def test_a_marketplaces_listings_may_be_a_recording_of_when_they_come_and_go(
    run: Run, tmp_path: Path
) -> None:
    flags = ["--visits", 400, "--days", 30, "--listings-out", tmp_path / "listings.jsonl.zst"]
    code, output, _ = run("marketplace", *flags, "--out", tmp_path / "sim.jsonl.zst", "--json")
    assert code == 0
    header, records = read(tmp_path / "listings.jsonl.zst")
    assert (header.topic, header.partitions) == ("listings", 4)
    said = [(record.timestamp, *decode_record(record.key, record.value)) for record in records]
    assert [time for time, _, _ in said] == sorted(time for time, _, _ in said)
    report = json.loads(output)
    assert len({name for _, name, _ in said}) == report["listings"]["number"] < 1_500
    assert 20 < sum(listing is None for _, _, listing in said) < 300
    assert said[-1][0] <= report["last"]
    there = {listing.listing_id for listing in read_listings(tmp_path / "listings.jsonl.zst")}
    assert there == {
        name for name, listing in {name: listing for _, name, listing in said}.items() if listing
    }


def test_a_wrong_file_is_one_line_exit_two_and_nothing_at_out(run: Run, hotels: Path, tmp_path: Path) -> None:
    hotels.write_text(hotels.read_text() + "u1,s1,soon,1,clickout item,31,BR,Rio,,,31\n")
    before = set(tmp_path.iterdir())
    code, output, errors = run("trivago", hotels, "--out", tmp_path / "rio.jsonl.zst")
    assert (code, output) == (2, "")
    assert errors == f"insession: {hotels}:5: column `timestamp`: expected a number, found 'soon'\n"
    assert set(tmp_path.iterdir()) == before


COLUMN = ("--column", "listing_id=i", "--column", "user_id=u", "--column", "timestamp=t")
OPTIONS = {"columns": COLUMN}


@pytest.mark.parametrize("format_", sorted({*FORMATS} - {"marketplace"}))
@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff\x1f" * 99, b"a,b\n1,2\n", b"\x1f\x8b\x08\x00\x00", b"PAR1"]
)
def test_no_format_takes_garbage(run: Run, tmp_path: Path, format_: str, content: bytes) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(content)
    code, _, errors = run(format_, path, "--out", tmp_path / "out.jsonl.zst", *OPTIONS.get(format_, ()))
    assert code == 2
    assert errors.startswith(f"insession: {path}:")
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


SETS: dict[str, tuple[dict[str, str], tuple[str, ...], int, int]] = {
    "yoochoose": (
        {
            "clicks.dat": "1,2014-04-07T10:51:09.277Z,21,3\n1,2014-04-07T10:50:09.277Z,22,0\n",
            "buys.dat": "1,2014-04-07T10:52:09.277Z,21,900,1\n",
        },
        (),
        3,
        2,
    ),
    "diginetica": (
        {
            "views.csv": "sessionId;userId;itemId;timeframe;eventdate\n1;NA;8;9;2016-05-09\n1;NA;9;5;2016-05-09\n",
            "categories.csv": "itemId;categoryId\n8;1\n",
        },
        (),
        2,
        1,
    ),
    "retailrocket": (
        {
            "events.csv": "timestamp,visitorid,event,itemid,transactionid\n9,1,view,8,\n5,1,addtocart,8,\n",
            "properties.csv": "timestamp,itemid,property,value\n5,8,categoryid,3\n",
        },
        (),
        2,
        1,
    ),
    "otto": (
        {
            "train.jsonl": '{"session":1,"events":[{"aid":2,"ts":9,"type":"clicks"},{"aid":3,"ts":5,"type":"carts"}]}'
        },
        (),
        2,
        0,
    ),
    "columns": ({"e.csv": "i,u,t,p\n7,1,9,5\n8,1,5,6\n"}, (*COLUMN, "--column", "price=p"), 2, 2),
}
"""Of formats: files, options, and how many records and listings they give."""


@pytest.mark.parametrize("format_", SETS)
def test_a_set_becomes_a_recording_in_time_order_with_its_listings_beside_it(
    run: Run, tmp_path: Path, format_: str
) -> None:
    files, options, records, listings = SETS[format_]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    out = tmp_path / "set.jsonl.zst"
    code, output, errors = run(
        format_, *(tmp_path / name for name in files), "--out", out, "--json", *options
    )
    assert code == 0, errors
    report = json.loads(output)
    assert report["records"] == records
    beside = tmp_path / "set.listings.jsonl"
    assert report["listings"] == ({"file": str(beside), "number": listings} if listings else None)
    if listings:
        found = [msgspec.json.decode(line, type=Listing) for line in beside.read_bytes().splitlines()]
        assert len(found) == listings
    header, items = read(out)
    assert header.source == format_
    values = [(record.timestamp, record.key, record.value) for record in items]
    assert [time for time, _, _ in values] == sorted(time for time, _, _ in values)
    for _, key, value in values:
        decode(value, key)


def test_files_of_gzip_and_without_pyarrow_are_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for format_, (files, options, records, _) in SETS.items():
        for name, text in files.items():
            (tmp_path / name).write_bytes(gzip.compress(text.encode()))
        paths = [tmp_path / name for name in files]
        code, output, errors = run(format_, *paths, "--out", tmp_path / "o.jsonl.zst", "--json", *options)
        assert code == 0, errors
        assert json.loads(output)["records"] == records


def test_what_needs_pyarrow_says_what_to_install(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "clicks.parquet").write_bytes(b"PAR1")
    for format_ in ("globo", "columns"):
        options = OPTIONS.get(format_, ())
        code, _, errors = run(
            format_, tmp_path / "clicks.parquet", "--out", tmp_path / "o.jsonl.zst", *options
        )
        assert code == 2
        assert "pyarrow: pip install 'insession[train]'" in errors
        assert errors.count("\n") == 1


def test_a_table_without_rows_is_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(COLUMNS + "\n")
    code, _, errors = run("trivago", path, "--out", tmp_path / "out.jsonl.zst")
    assert (code, errors) == (2, f"insession: {path}: no events in it\n")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trivago",), "give at least one FILE"),
        (("marketplace", "x.csv"), "takes no FILE"),
        (("globo", "x", "--metadata", "y"), "--metadata belongs to trivago"),
        (("session-rec", "x", "--listings-out", "y"), "--listings-out belongs to trivago and yoochoose and"),
        (("globo", "x", "--column", "user_id=y"), "--column belongs to columns, not to globo"),
        (("globo", "x", "--type", "view=click"), "--type belongs to columns, not to globo"),
        (("globo", "x", "--time", "iso"), "--time belongs to columns, not to globo"),
        (("columns", "x"), "name the column of `listing_id` with --column listing_id=COLUMN"),
        (
            ("columns", "x", *COLUMN, "--type", "scroll=none"),
            "--type scroll=none: name the column that has such values with --column type=COLUMN",
        ),
        (("trivago", "x", "--visits", "5"), "--visits belongs to marketplace, not to trivago"),
        (("globo", "x", "--seed", "1"), "--seed belongs to marketplace, not to globo"),
        (("otto", "x", "--listings", "99"), "--listings belongs to marketplace, not to otto"),
        (("otto", "x", "--markets", "2"), "--markets belongs to marketplace, not to otto"),
        (("otto", "x", "--start", "2024-01-01"), "--start belongs to marketplace, not to otto"),
        (("otto", "x", "--days", "9"), "--days belongs to marketplace, not to otto"),
        (
            ("marketplace", "--listings", "599"),
            "--listings 599: 12 markets have 50 listings each at least: give 600 or more, or fewer --markets",
        ),
        (
            ("marketplace", "--listings", "49", "--markets", "1"),
            "--listings 49: a market has 50 listings at least: give 50 or more",
        ),
        (("marketplace", "--start", "9999-01-01"), "it begins between 1970 and 9955"),
        (("marketplace", "--days", "nan"), "--days is a number"),
        (("marketplace", "--days", "0"), "--days"),
        (("marketplace", "--listings-out", ""), "one has no name"),
        (("marketplace", "--out", "."), "is a directory"),
        (("trivago", "absent.csv"), "absent.csv: No such file"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    format_, *others = arguments
    code, _, errors = run(format_, "--out", tmp_path / "out.jsonl.zst", *others)
    assert code == 2
    assert message in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train.csv", "--out", "train.csv"), "writing --out to train.csv would overwrite it"),
        (("train.csv", "--out", "link.csv"), "writing --out to link.csv would overwrite it"),
        (("train.csv", "--out", "o", "--listings-out", "./train.csv"), "writing --listings-out to train.csv"),
        (("train.csv", "--out", "m.csv", "--metadata", "m.csv"), "m.csv is read: writing --out"),
        (("train.csv", "--out", "o", "--listings-out", "o"), "can't be one file"),
        (("train.csv", "train.csv", "--out", "o"), "train.csv is given twice"),
        (("train.csv", "link.csv", "--out", "o"), "link.csv is given twice"),
        (("z.zip:a", "--out", "z.zip"), "z.zip:a is read: writing --out"),
    ],
)
def test_nothing_that_is_read_is_overwritten_or_read_twice(
    run: Run,
    hotels: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link.csv").symlink_to(hotels)
    Path("m.csv").write_text("item_id,properties\n31,WiFi\n")
    Path("z.zip").write_bytes(b"PK\x03\x04")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    code, _, errors = run("trivago", *arguments)
    assert code == 2
    assert message in errors
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_is_not_there_is_named(run: Run, hotels: Path, tmp_path: Path) -> None:
    code, _, errors = run("trivago", hotels, "--out", tmp_path / "absent" / "rio.jsonl.zst")
    assert code == 2
    assert "absent" in errors
    assert "No such file" in errors
