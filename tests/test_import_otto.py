from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from models.datasets import otto
from models.errors import UserError
from models.events import Booking, Click, Wishlist

LINE = (
    '{"session":42,"events":[{"aid":7,"ts":1661200010000,"type":"clicks"},'
    '{"aid":7,"ts":1661200040000,"type":"carts"},{"aid":9,"ts":1661200080000,"type":"orders"}]}\n'
)


def test_clicks_carts_and_orders_are_clicks_wishlists_and_bookings(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(LINE + '{"session":43,"events":[{"aid":1,"ts":1661200010000,"type":"clicks"}]}')
    assert list(otto.events([str(path)])) == [
        (Click(event_id="000000001", user_id="42", timestamp=1661200010000, listing_id="7"), "42"),
        (Wishlist(event_id="000000002", user_id="42", timestamp=1661200040000, listing_id="7"), "42"),
        (Booking(event_id="000000003", user_id="42", timestamp=1661200080000, listing_id="9"), "42"),
        (Click(event_id="000000004", user_id="43", timestamp=1661200010000, listing_id="1"), "43"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad: an empty file"),
        ("session,events\n", "bad:1: expected session and events"),
        (LINE + LINE.replace("carts", "baskets"), r"bad:2: .*`\$\.events\[1\]\.type`"),
        (LINE + LINE.replace("1661200040000", "1661200040"[:3] + "x"), "bad:2: expected session and events"),
        (LINE + LINE.replace('"aid":9', '"aid":"9"'), r"bad:2: .*Expected `int`, got `str`.*aid"),
        (LINE + "[]\n", "bad:2: .*Expected `object`"),
    ],
)
def test_a_wrong_line_is_named_by_file_line_and_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        list(otto.events([str(tmp_path / "bad")]))
    assert "\n" not in str(raised.value)


@pytest.mark.data
def test_the_example_is_read_whole() -> None:
    if "INSESSION_DATA" not in os.environ:
        pytest.skip("INSESSION_DATA is not set")
    found = list(otto.events([f"{os.environ['INSESSION_DATA']}/otto/train.jsonl"]))
    assert len({user for _, user in found}) == 20
    assert Counter(type(event) for event, _ in found).keys() == {Click, Wishlist, Booking}
    assert found[0][0] == Click(
        event_id="000000001", user_id="0", timestamp=1659304800025, listing_id="1517085"
    )
