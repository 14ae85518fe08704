from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.datasets.importing import Summary, in_time_order, records, write_listings
from models.events import Click, Tick, decode
from models.listings import Listing
from models.recording import Record, partition_of


@given(times=st.lists(st.integers(0, 5), max_size=40), chunk=st.sampled_from([1, 1_300, 10**9]))
def test_any_order_becomes_time_order_and_equal_times_keep_theirs(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], chunk: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    items = [Record(1, None, time, b"u", (), b"%d" % number) for number, time in enumerate(times)]
    assert list(in_time_order(items, folder, chunk)) == sorted(items, key=lambda item: item.timestamp)


def test_sorting_leaves_no_file_behind_when_it_ends_or_fails(tmp_path: Path) -> None:
    def failing() -> Iterator[Record]:
        yield Record(0, None, 1, None, (), b"1")
        raise KeyError

    with pytest.raises(KeyError):
        list(in_time_order(failing(), tmp_path, 1))
    assert (
        len(list(in_time_order([Record(0, None, time, None, (), b"1") for time in (2, 1)], tmp_path, 1))) == 2
    )
    assert list(tmp_path.iterdir()) == []


def test_a_record_is_what_a_producer_in_java_would_have_sent() -> None:
    click = Click(event_id="1", user_id="jürgen", timestamp=5, listing_id="a")
    (record,) = records([(click, "s")], 4, Summary())
    assert record.key == "jürgen".encode()
    assert decode(record.value, record.key) == click
    assert (record.timestamp, record.offset) == (5, None)
    assert record.partition == partition_of("jürgen".encode(), 4)
    assert record.headers == (("session", b"s"),)


def test_a_summary_counts_kinds_users_and_the_span_of_time() -> None:
    summary = Summary()
    for number, user in enumerate("aba", 7):
        summary.add(Click(event_id=str(number), user_id=user, timestamp=number, listing_id="x"))
    summary.add(Tick(event_id="t", timestamp=3))
    assert summary.events == {"click": 3, "tick": 1}
    assert (len(summary.users), summary.first, summary.last) == (2, 3, 9)


def test_listings_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    assert write_listings(path, [Listing(listing_id="a", price=5.5), Listing(listing_id="b")]) == 2
    assert path.read_text() == '{"listing_id":"a","price":5.5}\n{"listing_id":"b"}\n'

    def failing() -> Iterator[Listing]:
        yield Listing(listing_id="c")
        raise KeyError

    with pytest.raises(KeyError):
        write_listings(path, failing())
    assert path.read_text().startswith('{"listing_id":"a"')
    assert list(tmp_path.iterdir()) == [path]
