"""A recording run without a broker, and its expected result as a file."""

from __future__ import annotations

import json
import subprocess
from itertools import chain, zip_longest
from pathlib import Path

import msgspec
import pytest

from insession.processes import COMMAND
from models import bundle, expected, offline
from models.bundle import Bundle
from models.errors import UserError
from models.expected import DEAD, EMBEDDINGS, HISTORIES, SESSIONS, TOPICS, Comparison
from models.offline import Result
from models.partition import Partition
from models.recording import Header, Record, Writer, partition_of
from models.states import Memory
from tests.made import a_bundle
from tests.path import records

BUNDLE = a_bundle(40)
HEADER = expected.Header(bundle=BUNDLE.name, recording="")


def some() -> list[Record]:
    return records(900)


def run(items: list[Record], made: Bundle = BUNDLE) -> Result:
    return offline.run(offline.placed(items, 2), made, keep=True)


def lines(result: Result) -> list[bytes]:
    return [text for _, text in sorted(expected.result(result.outputs))]


def test_it_is_what_one_partition_after_the_other_gives_whatever_the_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    items = some()
    outputs = {}
    for number in range(2):
        partition = Partition(number, bundle=BUNDLE, states=Memory())
        for offset, item in enumerate(item for item in items if item.partition == number):
            partition.apply(offset, item.timestamp, item.key, item.value)
        changes = partition.flush()
        outputs[number] = offline.Outputs(
            changes.embeddings, changes.histories, changes.sessions, changes.dead
        )
    one_batch = [text for _, text in sorted(expected.result(outputs))]
    assert len(one_batch) > 200
    for batch in (1, 7, 100, 10_000):
        monkeypatch.setattr(offline, "BATCH", batch)
        assert lines(run(some())) == one_batch


def test_the_summary_counts_what_was_put_in() -> None:
    items = some()
    result = run(items)
    assert result.events == len(items)
    assert result.kinds.total() + result.dead.total() == len(items)
    assert result.dead.keys() == {"unreadable", "late"}
    assert result.kinds.keys() == {"click"}
    assert result.duplicates == sum(number % 40 == 11 for number in range(900))
    assert result.users == 20
    assert result.sessions == sum(len(outputs.sessions) for outputs in result.outputs.values()) > 100


def test_offsets_that_are_not_recorded_count_from_nothing_in_each_partition() -> None:
    keys = [b"a", b"b", b"c", b"a", None]
    without = [Record(None, None, 1, key, (), None) for key in keys]
    found = list(offline.placed(without, 3))
    assert [item.partition for item in found] == [*(partition_of(key, 3) for key in keys if key), 0]
    for number in range(3):
        offsets = [item.offset for item in found if item.partition == number]
        assert offsets == list(range(len(offsets)))
    recorded = [Record(1, 7, 1, b"a", (), None), Record(1, 9, 1, b"b", (), None)]
    assert [item.offset for item in offline.placed(recorded, 3)] == [7, 9]


def test_the_fingerprint_and_the_result_do_not_depend_on_how_partitions_interleave() -> None:
    one, other = ([item for item in some() if item.partition == number] for number in range(2))
    woven = [item for item in chain(*zip_longest(one, other)) if item is not None]
    apart = [item for item in some() if item.partition == 1] + [
        item for item in some() if item.partition == 0
    ]
    first, second = run(woven), run(apart)
    assert first.recording == second.recording
    assert lines(first) == lines(second)


@pytest.mark.parametrize(
    "change", [{"timestamp": 1}, {"value": b"{}"}, {"value": None}, {"key": b"u"}, {"offset": 50}]
)
def test_the_fingerprint_changes_with_any_record(change: dict[str, object]) -> None:
    items = some()
    for name, value in change.items():
        setattr(items[-1], name, value)
    assert run(items).recording != run(some()).recording


def test_two_files_are_the_same_bytes_and_equal_to_the_run(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "c.jsonl.zst"):
        result = run(some())
        expected.write(tmp_path / name, HEADER, expected.result(result.outputs))
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    for name in ("a.jsonl", "c.jsonl.zst"):
        header, kept = expected.read(tmp_path / name)
        assert header == HEADER
        comparison = expected.compare(kept, expected.result(run(some()).outputs))
        assert comparison.equal
        assert comparison.identical == comparison.records > 200


def first(
    topic: str, part: str | None, change: dict[str, object] | None = None, by: float = 0.0
) -> Comparison:
    """The run compared with itself, but for the first record of a topic: a part of it is changed, or it is taken away."""
    there = sorted(expected.result(run(some()).outputs))
    at, record = next(
        (at, record)
        for at, (_, text) in enumerate(there)
        if (record := json.loads(text))["topic"] == topic
        and (topic != EMBEDDINGS or record["value"]["vector"])
    )
    found = list(there)
    if part is None:
        del found[at]
    else:
        record[part].update(change or {})
        if by:
            record["value"]["vector"][2] += by
        found[at] = (there[at][0], msgspec.json.encode(record))
    return expected.compare(there, found)


@pytest.mark.parametrize("topic", [EMBEDDINGS, HISTORIES, SESSIONS, DEAD])
def test_a_record_that_is_missing_is_found(topic: str) -> None:
    comparison = first(topic, None)
    assert comparison.different == {topic: 1}
    assert comparison.first is not None
    assert (comparison.first.topic, comparison.first.what) == (topic, "missing")
    assert comparison.first.expected
    assert comparison.first.found == ""


@pytest.mark.parametrize("topic", TOPICS)
def test_a_record_that_is_there_twice_is_found(topic: str) -> None:
    there = sorted(expected.result(run(some()).outputs))
    twice = next((place, text) for place, text in there if json.loads(text)["topic"] == topic)
    comparison = expected.compare(there, [*there, twice])
    assert comparison.different == {topic: 1}
    assert comparison.first is not None
    assert comparison.first.what == "not expected"


@pytest.mark.parametrize(
    ("topic", "part", "change", "field", "found"),
    [
        (EMBEDDINGS, "value", {"as_of": 5}, "as_of", "5"),
        (EMBEDDINGS, "value", {"vector": None}, "vector", "null"),
        (EMBEDDINGS, "value", {"state": {"last": 1}}, "state.", ""),
        (HISTORIES, "value", {"visits": []}, "visits[0]", ""),
        (SESSIONS, "value", {"last": 7}, "last", "7"),
        (DEAD, "headers", {"reason": "odd"}, "headers.reason", '"odd"'),
    ],
)
def test_the_field_that_differs_is_named(
    topic: str, part: str, change: dict[str, object], field: str, found: str
) -> None:
    comparison = first(topic, part, change)
    assert comparison.different == {topic: 1}
    assert comparison.first is not None
    assert comparison.first.what == "differs"
    assert comparison.first.field.startswith(field)
    assert comparison.first.found.startswith(found)
    assert comparison.first.expected != comparison.first.found


def test_vectors_may_differ_in_the_last_digits_and_no_further() -> None:
    close = first(EMBEDDINGS, "value", by=0.9e-5)
    assert close.equal
    assert close.close == 1
    far = first(EMBEDDINGS, "value", by=1.2e-5)
    assert not far.equal
    assert far.first is not None
    assert far.first.field == "vector[2]"


def test_the_wording_of_a_dead_letter_is_not_compared() -> None:
    assert first(DEAD, "headers", {"detail": "in other words"}).close == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", ":1: not the first line of an expected result"),
        ('{"format":"insession-recording","version":1}\n', ":1: not the first line"),
        (
            '{"format":"insession-expected","version":2,"bundle":"","recording":""}\n',
            ":1: an expected result of version 2; this program reads 1",
        ),
        (
            '{"format":"insession-expected","version":1,"bundle":"","recording":""}\n{"topic":"odd"}\n',
            ":2: not a record of an expected result",
        ),
        (
            '{"format":"insession-expected","version":1,"bundle":"","recording":""}\n'
            '{"topic":"odd","partition":0,"key":"k","value":{}}\n',
            ":2: not a record of an expected result",
        ),
    ],
)
def test_what_is_no_expected_result_is_refused(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=says):
        list(expected.read(path)[1])


def command(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_commands(tmp_path: Path) -> None:
    bundle.write(tmp_path / "bundles", BUNDLE)
    path, kept = tmp_path / "r.jsonl.zst", tmp_path / "kept.jsonl"
    with Writer(path, Header(topic="clicks", partitions=2)) as writer:
        for item in some():
            writer.write(item)
    given = (str(path), "--bundle", str(tmp_path / "bundles"))
    code, out, _ = command("replay", *given, "--offline", "--json", "--out", str(kept))
    assert code == 0
    report = json.loads(out)
    assert report["events"] == len(some())
    assert report["users"] == 20
    assert report["dead_letters"].keys() == {"unreadable", "late"}
    assert report["events_per_second"] > 0
    bytes_ = kept.read_bytes()
    compare = ("verify", *given, "--expected", str(kept))
    code, out, _ = command(*compare)
    assert code == 0
    assert out.startswith("equal: ")
    # The expected file says another thing of one session.
    text = bytes_.decode()
    at = text.index('"click"', text.index('"topic":"sessions"'))
    kept.write_text(f"{text[:at]}'booking'{text[at + 7 :]}".replace("'booking'", '"booking"'))
    code, out, err = command(*compare)
    assert code == 1, err
    shown = out.splitlines()
    assert shown[0].startswith("sessions, partition ")
    assert shown[0].endswith(": events[0][3] differs")
    assert shown[1:3] == ['  expected "booking"', '  found    "click"']
    assert shown[3].endswith("differ: 1 of sessions")
    code, out, _ = command(*compare, "--json")
    assert code == 1
    assert json.loads(out)["first"]["field"] == "events[0][3]"
    assert command(*compare, "--update")[0] == 0
    assert kept.read_bytes() == bytes_
    # Of another bundle, or another recording, there is nothing to compare.
    bundle.write(tmp_path / "bundles", a_bundle(41))
    code, _, err = command(*compare)
    assert code == 2
    assert "another bundle" in err
    with Writer(path, Header(topic="clicks", partitions=2)) as writer:
        for item in some()[1:]:
            writer.write(item)
    code, _, err = command(*compare)
    assert code == 2
    assert "another recording" in err
    assert command("verify", *given, "--update")[0] == 2
    assert command("replay", *given, "--out", str(kept))[0] == 2
    assert command("replay", *given, "--offline", "--speed", "1")[0] == 2
