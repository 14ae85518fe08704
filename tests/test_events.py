"""The codec of events: what is read back, and what is refused and why."""

from __future__ import annotations

import contextlib
import json
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from models.events import (
    DEPTH,
    ID_BYTES,
    VALUE_BYTES,
    Click,
    Event,
    EventError,
    Result,
    Search,
    Tick,
    Unreadable,
    decode,
    encode,
)

CLICK = {"type": "click", "event_id": "e", "user_id": "u", "timestamp": 1_700_000_000_000, "listing_id": "l"}


def read(event: object, key: bytes | None = b"u") -> object:
    return decode(json.dumps(event).encode(), key)


ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda text: text.strip() != "" and not text.startswith("__")
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
        ({"listing_id": "é" * 129}, "$.listing_id"),
        ({"listing_id": "a\x00"}, "$.listing_id"),
        ({"event_id": "a\n"}, "$.event_id"),
        ({"market": "\x85"}, "$.market"),
        ({"search_id": " "}, "$.search_id"),
        ({"search_id": "\u2003\u00a0"}, "$.search_id"),
        ({"user_id": "__checkpoint"}, "$.user_id"),
        ({"user_id": "someone else"}, "$.user_id"),
        ({"version": 2}, "$.version"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], where: str) -> None:
    with pytest.raises(Unreadable) as error:
        read({**CLICK, **change})
    assert where in str(error.value)


@pytest.mark.parametrize("place", ["$.results[1].listing_id", "$.ranking.rank_id", "$.ranking.bundle"])
@pytest.mark.parametrize("name", ["a\x7f", " ", "🛏" * 65])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_a_bad_id_within_a_search_is_named(place: str, name: str, ascii_only: bool) -> None:
    names = {where: name if where == place else "x" for where in ("$.ranking.rank_id", "$.ranking.bundle")}
    results = ["a", name if "results" in place else "b"]
    search = {
        "type": "search",
        "event_id": "e",
        "user_id": "u",
        "timestamp": 1,
        "results": [{"listing_id": listing, "position": at + 1} for at, listing in enumerate(results)],
        "ranking": {"rank_id": names["$.ranking.rank_id"], "bundle": names["$.ranking.bundle"]},
    }
    with pytest.raises(Unreadable) as error:
        decode(json.dumps(search, ensure_ascii=ascii_only).encode(), b"u")
    assert str(error.value).endswith(f"at `{place}`")


VALIDATOR = Draft202012Validator(msgspec.json.schema(Event))


@given(
    st.text(st.sampled_from(' \t\n\x00\x1f\x7f\x80\x9f\xa0a"\\é\u2028\u2003🛏'), max_size=4)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    st.booleans(),
)
def test_the_schema_and_the_code_agree_on_ids(name: str, ascii_only: bool) -> None:
    event = {**CLICK, "listing_id": name}
    try:
        decode(json.dumps(event, ensure_ascii=ascii_only).encode(), b"u")
        good = True
    except Unreadable:
        good = False
    assert good == VALIDATOR.is_valid(event)


@pytest.mark.parametrize("name", ["x" * ID_BYTES, "é" * (ID_BYTES // 2), '"\\', " a ", "a\u2028b"])
def test_odd_ids_are_good_ids(name: str) -> None:
    assert isinstance(read({**CLICK, "user_id": name}, name.encode()), Click)


@pytest.mark.parametrize("frames", [0, 500])
def test_how_deep_a_value_may_be_does_not_depend_on_the_stack(frames: int) -> None:
    def within(value: bytes, frames: int) -> object:
        return within(value, frames - 1) if frames else decode(value, b"u")

    def nested(depth: int, text: str = "") -> bytes:
        return (
            json.dumps({**CLICK, "text": text, "path": "@"})
            .encode()
            .replace(b'"@"', b"[" * (depth - 1) + b"]" * (depth - 1))
        )

    assert sys.getrecursionlimit() == 1_000
    for text in ("", "]" * DEPTH, "[" * DEPTH, '\\"', "\\", '"'):
        assert within(nested(DEPTH, text), frames) == read(CLICK)
        with pytest.raises(Unreadable, match="deep"):
            within(nested(DEPTH + 1, text), frames)


def test_a_value_may_have_a_mebibyte() -> None:
    room = VALUE_BYTES - len(json.dumps({**CLICK, "note": ""}))
    assert read({**CLICK, "note": "x" * room}) == read(CLICK)
    with pytest.raises(Unreadable, match="1,048,577 bytes"):
        read({**CLICK, "note": "x" * (room + 1)})


@pytest.mark.parametrize("field", [b'"note":"\xff"', b'"\xff":1'])
def test_what_is_not_utf_8_is_unreadable_in_fields_nobody_knows_too(field: bytes) -> None:
    value = json.dumps(CLICK).encode()[:-1] + b"," + field + b"}"
    with pytest.raises(Unreadable, match="utf-8"):
        decode(value, b"u")


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
