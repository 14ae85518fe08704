from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from models.datasets import globo
from models.errors import UserError
from models.events import Click

ROWS: dict[str, list[Any]] = {
    "user_id": [59, 79, 59, 80],
    "session_id": [1506826329267796, 1506826486139816, 1506826329267796, 1506826486139817],
    "click_article_id": [234853, 159359, 96663, 1],
    "click_timestamp": [1506826801702, 1506826800026, 1506826801702, 1506826800026],
    "click_environment": [4, 4, 4, 4],
}


def write(path: Path, **changed: Any) -> str:
    parquet.write_table(pa.table(ROWS | changed), path)
    return str(path)


def test_clicks_come_in_time_order_with_ids_in_the_files_order(tmp_path: Path) -> None:
    found = list(globo.events([write(tmp_path / "clicks.parquet")]))
    assert found[0] == (
        Click(event_id="000000002", user_id="79", timestamp=1506826800026, listing_id="159359"),
        "1506826486139816",
    )
    assert [event.event_id for event, _ in found] == ["000000002", "000000004", "000000001", "000000003"]


def test_several_files_are_one_stream(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.parquet"), write(tmp_path / "b.parquet")
    found = [event for event, _ in globo.events([first, second])]
    assert [event.timestamp for event in found] == sorted(event.timestamp for event in found)
    assert len({event.event_id for event in found}) == 8


def test_the_hourly_csv_files_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "clicks_hour_000.csv"
    lines = [",".join(map(str, row)) for row in zip(*ROWS.values(), strict=True)]
    path.write_text("\n".join([",".join(ROWS), *lines, ""]))
    assert list(globo.events([str(path)])) == list(globo.events([write(tmp_path / "clicks.parquet")]))


def test_times_may_be_arrow_timestamps(tmp_path: Path) -> None:
    times = pa.array(ROWS["click_timestamp"], pa.timestamp("ms")).cast(pa.timestamp("us"))
    path = write(tmp_path / "t.parquet", click_timestamp=times)
    assert list(globo.events([path])) == list(globo.events([write(tmp_path / "clicks.parquet")]))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"user_id": [1, None, 2, 3]}, r":2: column `user_id`: expected a whole number, found None"),
        ({"user_id": ["1", "2", "x", "3"]}, r":3: column `user_id`: expected a whole number, found 'x'"),
        ({"click_timestamp": [1, 2, 3, -4]}, r":4: column `click_timestamp`: expected milliseconds"),
        ({"click_timestamp": [1, 2, 3, 2**60]}, r":4: column `click_timestamp`: expected milliseconds"),
        (
            {"click_article_id": [1.0, 2.5, 3.0, 4.0]},
            r":2: column `click_article_id`: expected a whole number",
        ),
    ],
)
def test_a_wrong_row_is_named_by_file_row_and_column(tmp_path: Path, changed: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"bad\.parquet{message}"):
        list(globo.events([write(tmp_path / "bad.parquet", **changed)]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"bad: an empty file; expected the columns user_id"),
        (b"PAR1 and then nothing of the kind PAR1", r"bad: "),
        (b"\x00\xff" * 100, r"bad"),
        (b"user_id,session_id\n1,2\n", r"bad:1: no column `click_article_id`: expected the columns"),
        (
            b"user_id,session_id,click_article_id,click_timestamp\n1,2,3,x\n",
            r"bad:2: column `click_timestamp`",
        ),
        (
            b"user_id,session_id,click_article_id,click_timestamp\n1,2,3\n",
            r"bad: .*Row #2: Expected 4 columns, got 3",
        ),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        list(globo.events([str(path)]))
    assert "\n" not in str(raised.value)


def test_a_parquet_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    parquet.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(UserError, match=r"other\.parquet:1: no column `user_id`"):
        list(globo.events([str(path)]))
    with pytest.raises(UserError, match=r"absent\.parquet: No such file"):
        list(globo.events([str(tmp_path / "absent.parquet")]))


@pytest.mark.data
def test_the_portals_clicks_are_read_in_time_order() -> None:
    if "INSESSION_DATA" not in os.environ:
        pytest.skip("INSESSION_DATA is not set")
    events = globo.events([f"{os.environ['INSESSION_DATA']}/globo/clicks.parquet"])
    times = [event.timestamp for event, _ in islice(events, 100_000)]
    assert times == sorted(times)
    assert len(times) == 100_000
