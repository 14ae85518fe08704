from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from models.datasets import formats, globo, trivago
from models.errors import UserError
from models.events import Click, encode
from models.recording import Header, Record, Writer
from tests.made import START, record

SESSION_REC = "SessionId\tItemId\tTime\n7\ta\t1500000000\n7\tb\t1500000001\n"
GLOBO = {name: [1, 2] for name in globo.COLUMNS}
TRIVAGO = ",".join(trivago.COLUMNS) + "\nu,s,1541030578,interaction item info,12,Rio,\n"


def click(name: str, listing: str, at: int = 0) -> Click:
    return Click(event_id=name, user_id="u", timestamp=START + at, listing_id=listing)


def test_each_format_is_told_by_what_is_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(SESSION_REC)
    (tmp_path / "b").write_bytes(gzip.compress(SESSION_REC.encode()))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("train.txt", SESSION_REC)
    parquet.write_table(pa.table(GLOBO), tmp_path / "d")
    (tmp_path / "e").write_text(",".join(globo.COLUMNS) + "\n1,2,3,4\n")
    (tmp_path / "f").write_text(TRIVAGO)
    record(tmp_path / "g.jsonl.zst", [click("e", "l")])
    record(tmp_path / "h.jsonl", [click("e", "l")])
    names = {
        name: formats.detect(str(tmp_path / name)).name
        for name in ("a", "b", "c.zip:train.txt", "d", "e", "f", "g.jsonl.zst", "h.jsonl")
    }
    assert names == {
        "a": "session-rec",
        "b": "session-rec",
        "c.zip:train.txt": "session-rec",
        "d": "globo",
        "e": "globo",
        "f": "trivago",
        "g.jsonl.zst": "recording",
        "h.jsonl": "recording",
    }
    assert all(list(formats.entries([str(tmp_path / name)])) for name in names)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("yoochoose", "1,2014-04-07T10:51:09.277Z,214536502,0\n"),
        ("yoochoose", "1,2014-04-07T10:51:09.277Z,214536502,12462,1\n"),
        ("diginetica", "sessionId;userId;itemId;timeframe;eventdate\n1;NA;81766;526309;2016-05-09\n"),
        (
            "retailrocket",
            "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n",
        ),
        ("otto", '{"session":1,"events":[{"aid":2,"ts":1659304800025,"type":"clicks"}]}\n'),
        ("columns", "timestamp;user_id;listing_id;type\n2020-01-01;u;l;click\n"),
    ],
)
def test_data_sets_that_are_imported_are_told_too(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / "x").write_text(content)
    assert formats.detect(str(tmp_path / "x")).name == name
    [(event, _)] = formats.entries([str(tmp_path / "x")])
    assert event.user_id  # type: ignore[union-attr]


def test_files_of_several_formats_are_one_stream_in_the_order_given(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(SESSION_REC)
    record(tmp_path / "g.jsonl.zst", [click("e", "l")])
    paths = [str(tmp_path / name) for name in ("g.jsonl.zst", "a")]
    found = [
        (event.listing_id, session) for event, session in formats.entries(paths) if isinstance(event, Click)
    ]
    assert found == [("l", None), ("a", "7"), ("b", "7")]


def test_a_recording_gives_its_sessions_and_passes_over_what_is_no_event(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl.zst"
    with Writer(path, Header(topic="clicks", partitions=1)) as writer:
        writer.write(Record(0, None, START, b"u", (("session", b"s1"),), encode(click("e", "l"))))
        writer.write(Record(0, None, START, b"u", (), b"\xff"))
    assert [(event.timestamp, session) for event, session in formats.entries([str(path)])] == [(START, "s1")]


def test_what_is_in_no_known_format_is_refused_with_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("what,ever\n1,2\n")
    with pytest.raises(UserError, match=r"x:1: in no format that is known: .*SessionId.*'ever', 'what'"):
        formats.detect(str(tmp_path / "x"))
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(UserError, match="in no format"):
        formats.detect(str(tmp_path / "empty"))


def test_what_can_not_be_read_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        formats.detect(str(tmp_path / "absent"))
    (tmp_path / "cut").write_bytes(gzip.compress(SESSION_REC.encode() * 9)[:12])
    with pytest.raises(UserError, match="cut"):
        formats.detect(str(tmp_path / "cut"))
    (tmp_path / "bad").write_bytes(b"PAR1 is not enough")
    with pytest.raises(UserError, match="parquet that can't be read"):
        formats.detect(str(tmp_path / "bad"))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("train.txt", SESSION_REC)
    with pytest.raises(UserError, match=r"c\.zip:\{train\.txt\}"):
        formats.detect(str(tmp_path / "c.zip"))
