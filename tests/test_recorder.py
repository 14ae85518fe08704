"""A recording that grows: interrupted anywhere, it is gone on with, and what stands at its path is whole."""

from __future__ import annotations

import resource
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import lines, recorder
from models.errors import UserError
from models.recorder import Recorder
from models.recording import Header, Record, Writer, count, read

HEADER = Header(topic="clicks", partitions=2, cluster_id="c", topic_id="t", beginnings=(0, 5))


def topic(size: int) -> list[Record]:
    """What stands on a topic of two partitions, the second from offset 5 on."""
    return [
        Record(
            n % 2,
            n // 2 + 5 * (n % 2),
            1_000 + n,
            b"user",
            (),
            b"%d %s" % (n, secrets.token_hex(20).encode()),
        )
        for n in range(size)
    ]


def go_on(path: Path, there: list[Record], until: int | None = None) -> None:
    """Record what is there from where the recording stands."""
    with Recorder(path, HEADER) as grows:
        positions = list(grows.standing.positions)
        for item in there[:until]:
            assert item.partition is not None
            assert item.offset is not None
            if item.offset >= positions[item.partition]:
                grows.write(item)


def killed(path: Path, there: list[Record], until: int) -> None:
    """Record so many, and end as a process does that is killed: nothing more is written, nothing put in place."""
    grows = Recorder(path, HEADER)
    for item in there[:until]:
        grows.write(item)
    grows._file.close()


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "FRAME_BYTES", 2_000)


@pytest.mark.parametrize("name", ["r.jsonl.zst", "r.jsonl"])
def test_a_recording_begun_ended_and_gone_on_with_is_the_whole(tmp_path: Path, name: str) -> None:
    there = topic(300)
    for until in (0, 100, 101, 300, 300):
        go_on(tmp_path / name, there, until)
        header, found = read(tmp_path / name)
        assert header == HEADER
        assert list(found) == there[:until]
        assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["r.jsonl.zst", "r.jsonl"])
def test_cut_off_at_any_byte_it_is_gone_on_with(tmp_path: Path, name: str) -> None:
    there = topic(120)
    path, part = tmp_path / name, tmp_path / f"{name}.part"
    killed(path, there, 100)
    whole = part.read_bytes()
    assert len(whole) > 3_000
    for size in [*range(0, len(whole), 97), len(whole)]:
        path.unlink(missing_ok=True)
        part.write_bytes(whole[:size])
        go_on(path, there)
        assert list(read(path)[1]) == there, size


def test_what_is_whole_of_a_killed_recording_is_not_asked_for_again(tmp_path: Path) -> None:
    killed(tmp_path / "r.jsonl.zst", topic(100), 100)
    assert not (tmp_path / "r.jsonl.zst").exists()
    with Recorder(tmp_path / "r.jsonl.zst", HEADER) as grows:
        assert 80 < grows.before < 100


@given(at=st.integers(0, 10_000), byte=st.integers(1, 255))
def test_damage_to_what_was_left_behind_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "r.jsonl.zst"
    there = topic(150)
    killed(path, there, 100)
    part = lines.part_of(path)
    data = bytearray(part.read_bytes())
    data[at % len(data)] ^= byte
    part.write_bytes(data)
    go_on(path, there)
    assert list(read(path)[1]) == there


def test_a_copy_that_was_cut_off_does_not_replace_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl.zst"
    there = topic(200)
    go_on(path, there, 200)
    data = path.read_bytes()
    lines.part_of(path).write_bytes(data[: len(data) // 2])
    # The topic has nothing any more of what the recording has.
    go_on(path, [])
    assert list(read(path)[1]) == there
    assert path.read_bytes() == data


def test_an_exception_keeps_what_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl.zst"
    there = topic(10)

    def interrupted() -> None:
        with Recorder(path, HEADER) as grows:
            grows.write(there[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(read(path)[1]) == there[:1]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl.zst"
    with Recorder(path, HEADER) as grows:
        grows.write(topic(1)[0])
        with pytest.raises(UserError, match="another process records"):
            Recorder(path, HEADER)
    assert count(path) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"topic_id": "u"}, "another topic: of clicks with id t on cluster c"),
        ({"cluster_id": "d"}, "another topic"),
        ({"partitions": 3, "beginnings": (0, 5, 0)}, "from 2 partitions and clicks has 3 now"),
    ],
)
def test_the_recording_of_another_topic_is_refused_and_stays(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    path = tmp_path / "r.jsonl.zst"
    go_on(path, topic(10))
    before = path.read_bytes()
    with pytest.raises(UserError, match=says):
        Recorder(path, msgspec.structs.replace(HEADER, **change))
    assert path.read_bytes() == before


def test_a_recording_that_was_imported_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl.zst"
    with Writer(path, Header(topic="clicks", partitions=2)) as writer:
        writer.write(Record(None, None, 1, None, (), None))
    before = path.read_bytes()
    with pytest.raises(UserError, match="something else"):
        Recorder(path, HEADER)
    assert path.read_bytes() == before
    path.write_text("my notes\n")
    with pytest.raises(UserError, match="not the first line of a recording"):
        Recorder(path, HEADER)
    assert path.read_text() == "my notes\n"


def test_interrupted_in_the_middle_of_a_frame_the_recording_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.jsonl.zst"
    there = topic(200)

    class Interrupted:
        """The file, which takes half of the fourth frame before Ctrl-C comes."""

        def __init__(self, file: FileIO) -> None:
            self.file, self.frames = file, 0

        def write(self, data: memoryview) -> int:
            self.frames += 1
            if self.frames == 4:
                self.file.write(data[: len(data) // 2])
                raise KeyboardInterrupt
            return self.file.write(data)

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def __enter__(self) -> Interrupted:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

    def interrupted() -> None:
        with Recorder(path, HEADER) as grows:
            monkeypatch.setattr(grows, "_file", Interrupted(grows._file))
            for item in there:
                grows.write(item)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    kept = count(path)
    assert 0 < kept < 200
    assert list(read(path)[1]) == there[:kept]
    go_on(path, there)
    assert list(read(path)[1]) == there


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_said_and_what_was_recorded_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl.zst"
    there = topic(200)
    with files_of_at_most(3_000), pytest.raises(UserError, match=r"r\.jsonl\.zst\.part: File too large"):
        go_on(path, there)
    assert 0 < count(path) < 200
    go_on(path, there)
    assert list(read(path)[1]) == there


def test_a_place_that_is_not_there_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        Recorder(tmp_path / "absent" / "r.jsonl.zst", HEADER)
    with pytest.raises(UserError, match="a folder"):
        Recorder(tmp_path, HEADER)
