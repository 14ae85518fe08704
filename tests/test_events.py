"""The codec of events: what is read back, and what is refused and why."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.events import Click, EventError, Result, Search, Tick, Unreadable, decode, encode

CLICK = {"type": "click", "event_id": "e", "user_id": "u", "timestamp": 1_700_000_000_000, "listing_id": "l"}


def read(event: object, key: bytes | None = b"u") -> object:
    return decode(json.dumps(event).encode(), key)


ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda text: not text.startswith("__")
)


@given(ids, ids, st.integers(0, 253_402_300_799_999), ids, st.none() | ids)
def test_what_is_written_is_read_back(
    event_id: str, user: str, time: int, listing: str, market: str | None
) -> None:
    event = Click(event_id=event_id, user_id=user, timestamp=time, listing_id=listing, market=market)
    assert decode(encode(event), user.encode()) == event


def test_a_search_is_read_back_with_its_results() -> None:
    results = (Result(listing_id="a", position=1, price=9.5), Result(listing_id="b", position=2))
    event = Search(event_id="s", user_id="u", timestamp=1, results=results, query="beach")
    assert decode(encode(event), b"u") == event


def test_fields_nobody_knows_are_ignored() -> None:
    assert read({**CLICK, "colour": "blue"}) == read(CLICK)


def test_a_tick_needs_no_user_and_no_key() -> None:
    assert isinstance(read({"type": "tick", "event_id": "t", "timestamp": 5}, None), Tick)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"type": "dance"}, "$.type"),
        ({"timestamp": "soon"}, "$.timestamp"),
        ({"timestamp": -1}, "$.timestamp"),
        ({"timestamp": 1e300}, "$.timestamp"),
        ({"timestamp": 1.5}, "$.timestamp"),
        ({"listing_id": ""}, "$.listing_id"),
        ({"listing_id": "x" * 257}, "$.listing_id"),
        ({"listing_id": None}, "$.listing_id"),
        ({"user_id": "__checkpoint"}, "$.user_id"),
        ({"user_id": "someone else"}, "$.user_id"),
        ({"version": 2}, "$.version"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], where: str) -> None:
    with pytest.raises(Unreadable) as error:
        read({**CLICK, **change})
    assert where in str(error.value)


@pytest.mark.parametrize("missing", ["type", "event_id", "user_id", "timestamp", "listing_id"])
def test_a_missing_field_is_named(missing: str) -> None:
    with pytest.raises(Unreadable, match=missing):
        read({name: value for name, value in CLICK.items() if name != missing})


@pytest.mark.parametrize(
    "value", [None, b"", b"{", b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b'{"type":"click"', b"NaN"]
)
def test_what_is_no_event_is_unreadable(value: bytes | None) -> None:
    with pytest.raises(Unreadable):
        decode(value, b"u")


@given(st.binary(max_size=200), st.none() | st.binary(max_size=20))
def test_any_bytes_are_an_event_or_an_event_error(value: bytes, key: bytes | None) -> None:
    with contextlib.suppress(EventError):
        decode(value, key)
