from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from models.datasets import session_rec
from models.errors import UserError
from models.events import Click, Event

TEXT = "SessionId\tItemId\tTime\n27\t5959\t1593536687.0\n27\t13697\t1593536656.25\n67\t1394\t1593535465\n"


def read(*paths: str) -> list[Event]:
    return [event for event, _ in session_rec.events(paths)]


def test_each_row_is_a_click_whose_user_is_the_session(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text(TEXT)
    assert list(session_rec.events([str(path)])) == [
        (Click(event_id="000000001", user_id="27", timestamp=1593536687000, listing_id="5959"), "27"),
        (Click(event_id="000000002", user_id="27", timestamp=1593536656250, listing_id="13697"), "27"),
        (Click(event_id="000000003", user_id="67", timestamp=1593535465000, listing_id="1394"), "67"),
    ]


def test_columns_may_stand_in_any_order_and_others_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text('Time\tother\tItemId\tSessionId\n5\t"x\t1394\t67\n')
    (click,) = read(str(path))
    assert click == Click(event_id="000000001", user_id="67", timestamp=5000, listing_id="1394")


def test_event_ids_are_unique_over_files_and_sort_in_their_order(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(TEXT)
    ids = [event.event_id for event in read(str(tmp_path / "a"), str(tmp_path / "b"))]
    assert ids == sorted(set(ids))


def test_a_member_of_a_zip_is_read_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "example.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.txt", TEXT)
        archive.writestr("test.txt", "SessionId\tItemId\tTime\n")
    assert len(read(f"{path}:train.txt")) == 3
    for wrong in (str(path), f"{path}:absent.txt"):
        with pytest.raises(UserError, match=r"name one of the zip's members: .*train\.txt,test\.txt"):
            read(wrong)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty file; expected the columns SessionId, ItemId, Time"),
        ("SessionId,ItemId,Time\n1,2,3\n", ":1: no column `SessionId`: expected the columns"),
        ("SessionId\tItemId\tTime\n1\t2\n", ":2: expected 3 fields, as in the first line, found 2"),
        ("SessionId\tItemId\tTime\n1\t2\t3\n1\t2\tx\n", ":3: column `Time`: expected a number, found 'x'"),
        ("SessionId\tItemId\tTime\n1\t2\t1_0\n", ":2: column `Time`: expected a number"),
        ("SessionId\tItemId\tTime\n1\t2\t1e300\n", ":2: column `Time`: expected seconds since 1970"),
        ("SessionId\tItemId\tTime\n\t2\t3\n", ":2: column `SessionId`: expected 1 to 256 characters"),
        ("SessionId\tItemId\tTime\n1\t\t3\n", ":2: column `ItemId`: expected 1 to 256 characters"),
    ],
)
def test_a_wrong_file_is_named_by_file_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"bad\.txt(: )?{message}"):
        read(str(path))


@pytest.mark.data
def test_serenades_example_is_read_whole() -> None:
    if "INSESSION_DATA" not in os.environ:
        pytest.skip("INSESSION_DATA is not set")
    events = read(f"{os.environ['INSESSION_DATA']}/serenade/example.zip:train.txt")
    assert len(events) == 113_601
    assert len({event.listing_id for event in events if isinstance(event, Click)}) == 18_009
