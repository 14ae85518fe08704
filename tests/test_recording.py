from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from models.errors import UserError
from models.recording import Header, Record, Writer, read

HEADER = Header(topic="clicks", partitions=4, source="a test")
HEAD = '{"format":"insession-recording","version":1,"topic":"clicks","partitions":4}\n'

some_bytes = st.none() | st.binary(max_size=40) | st.text(max_size=40).map(str.encode)
some_records = st.builds(
    Record,
    partition=st.none() | st.integers(0, 3),
    offset=st.none() | st.integers(0, 2**63 - 1),
    timestamp=st.integers(-1, 2**63 - 1),
    key=some_bytes,
    headers=st.lists(st.tuples(st.text(max_size=8), some_bytes), max_size=3).map(tuple),
    value=some_bytes,
)


def record(number: int) -> Record:
    return Record(number % 4, number, 1_000 + number, b"user", (), b'{"n":%d}' % number)


def write(path: Path, records: Iterable[Record]) -> Path:
    with Writer(path, HEADER) as writer:
        for each in records:
            writer.write(each)
    return path


@given(records=st.lists(some_records, max_size=8), name=st.sampled_from(["r.jsonl.zst", "r.jsonl"]))
def test_any_bytes_come_back_as_they_were(records: list[Record], name: str) -> None:
    with TemporaryDirectory() as folder:
        path = write(Path(folder) / name, records)
        header, found = read(path)
        assert header == HEADER
        assert list(found) == records


def test_a_long_recording_comes_back_across_all_its_blocks(tmp_path: Path) -> None:
    records = [record(number) for number in range(20_000)]
    assert list(read(write(tmp_path / "r.jsonl.zst", records))[1]) == records


def test_the_file_is_what_the_docs_say(tmp_path: Path) -> None:
    records = [
        Record(1, 7, 5, b"u", (("a", b"b"), ("c", None), ("d", b"\xff")), b"{}"),
        Record(None, None, 6, None, (), None),
        Record(None, None, 7, b"\xff", (), b"\xfe\xff"),
    ]
    assert write(tmp_path / "r.jsonl", records).read_text().splitlines()[1:] == [
        '{"partition":1,"offset":7,"timestamp":5,"key":"u",'
        '"headers":[["a","b"],["c",null],["d",{"base64":"/w=="}]],"value":"{}"}',
        '{"timestamp":6,"key":null,"value":null}',
        '{"timestamp":7,"key_base64":"/w==","value_base64":"/v8="}',
    ]


def test_files_of_several_zstd_frames_are_read_to_their_end(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl.zst", [record(1)])
    with path.open("ab") as file:
        file.write(zstandard.compress(b'{"timestamp":1,"key":null,"value":null}\n'))
    assert list(read(path)[1]) == [record(1), Record(None, None, 1, None, (), None)]


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    records = [record(number) for number in range(5_000)]
    first = write(tmp_path / "a.jsonl.zst", records).read_bytes()
    assert write(tmp_path / "b.jsonl.zst", records).read_bytes() == first


@pytest.mark.parametrize("part", [0.02, 0.3, 0.7, 0.999])
def test_a_truncated_file_says_so_and_where(tmp_path: Path, part: float) -> None:
    path = write(tmp_path / "r.jsonl.zst", [record(number) for number in range(50_000)])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(UserError, match=r"r\.jsonl\.zst:\d+: truncated"):
        list(read(path)[1])


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl.zst", [record(number) for number in range(50_000)])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"r\.jsonl\.zst:\d+: "):
        list(read(path)[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ":1: not the first line of a recording"),
        (b"user_id,session_id\n", ":1: not the first line of a recording"),
        (b"\x1f\x8b\x08\x00", ":1: not the first line of a recording"),
        (b'{"version":1,"topic":"clicks","partitions":4}\n', ":1: not the first line of a recording.*format"),
        (
            HEAD.replace('"version":1', '"version":2').encode(),
            ":1: a recording of version 2; this program reads 1",
        ),
        (HEAD.replace("4", "0").encode(), r":1: not the first line of a recording.*\$.partitions"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"timestamp":1,"key":null}', "one of `value` and `value_base64` must be given"),
        ('{"timestamp":1,"value":""}', "one of `key` and `key_base64` must be given"),
        ('{"timestamp":1,"key":"","value":"","value_base64":""}', "one of `value` and `value_base64`"),
        ('{"timestamp":"1","key":"","value":""}', r"\$.timestamp"),
        ('{"timestamp":1,"key":"","value_base64":"%"}', r"\$.value_base64"),
        ('{"timestamp":1,"key":"","value":"","partition":4}', "partition 4, but the topic has 4"),
        ('{"timestamp":1,"key":"\\ud800","value":""}', "not a record"),
        ('{"timestamp":1,"key":"","val', "not a record"),
        ("", "not a record"),
    ],
)
def test_a_line_that_is_no_record_is_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(HEAD + '{"timestamp":1,"key":null,"value":null}\n' + line + "\n")
    _, records = read(path)
    next(records)
    with pytest.raises(UserError, match=rf"r\.jsonl:3: .*{message}"):
        next(records)


def test_a_file_that_is_not_there_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read(tmp_path / "absent.jsonl.zst")
    with pytest.raises(UserError, match="No such file"):
        Writer(tmp_path / "absent" / "r.jsonl.zst", HEADER)
    with pytest.raises(UserError, match="a folder"):
        Writer(tmp_path, HEADER)


def test_an_exception_leaves_nothing_and_what_was_there_before(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl.zst", [record(1)])

    def interrupted() -> Iterator[Record]:
        yield record(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(path, interrupted())
    assert list(read(path)[1]) == [record(1)]
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_replaces_what_was_there_only_when_it_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl.zst", [record(1)])
    with Writer(path, HEADER) as writer:
        writer.write(record(2))
        assert list(read(path)[1]) == [record(1)]
    assert list(read(path)[1]) == [record(2)]
