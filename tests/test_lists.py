"""The lists of a request and its answer are read and written as their types say."""

from __future__ import annotations

import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.rank import Candidate, Candidates
from models.space import Space
from serving import _lists
from serving.api import RankedListing, RankRequest
from serving.problems import Refused, decode

RANK = msgspec.json.Decoder(RankRequest)

IDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=8, unique=True)
SCORES = st.floats(-1e9, 1e9, width=32)


@given(IDS, st.data())
def test_what_is_written_is_what_the_type_encodes(ids: list[str], data: st.DataObject) -> None:
    size = len(ids)
    order = data.draw(st.permutations(range(size)))
    scores = data.draw(st.none() | st.lists(SCORES, min_size=size, max_size=size))
    known = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    caller = data.draw(st.integers(0, size))
    written = _lists.answered(
        candidates(ids, [listing for listing, there in zip(ids, known, strict=True) if there]),
        np.array(order, np.int64),
        np.array(scores, np.float32) if scores is not None else None,
        caller,
    )
    expected = [
        RankedListing(
            listing_id=ids[at],
            position=place,
            caller_position=at + 1 if at < caller else None,
            score=scores[at] if scores is not None else None,
            known=known[at],
            retrieved=at >= caller,
        )
        for place, at in enumerate(order, 1)
    ]
    read = msgspec.json.decode(written, type=list[RankedListing])
    scored = [(one.score, other.score) for one, other in zip(read, expected, strict=True)]
    assert all(a == b if b is None else a == pytest.approx(b, rel=1e-9, abs=1e-6) for a, b in scored)
    assert [_unscored(one) for one in read] == [_unscored(one) for one in expected]
    assert written.decode().count(" ") == sum(listing.count(" ") for listing in ids)


def candidates(ids: list[str], known: list[str]) -> Candidates:
    given = Candidates([Candidate(listing) for listing in ids])
    space = Space({listing: row for row, listing in enumerate(known)}, np.zeros((len(known), 2), np.float32))
    given.look_up(space.table)
    return given


def _unscored(one: RankedListing) -> RankedListing:
    return msgspec.structs.replace(one, score=None)


def test_lists_that_do_not_fit_are_refused() -> None:
    one = candidates(["a"], ["a"])
    with pytest.raises(ValueError, match="different lengths"):
        _lists.answered(one, np.zeros(1, np.int64), np.zeros(2, np.float32), 1)
    with pytest.raises(ValueError, match="different lengths"):
        _lists.answered(Candidates([Candidate("a")]), np.zeros(1, np.int64), None, 1)
    with pytest.raises(IndexError):
        _lists.answered(one, np.ones(1, np.int64), None, 1)
    with pytest.raises(ValueError, match="beyond all measure"):
        _lists.answered(one, np.zeros(1, np.int64), np.full(1, np.inf, np.float32), 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NUMBERS = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(max_size=6) | st.sampled_from(["a", "\u00e9\U0001f600", "x" * 256, "x" * 257])


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, object]:
    """Requests, good and bad."""
    given = st.fixed_dictionaries(
        {"listing_id": NAMES},
        optional={
            "score": st.none() | NUMBERS,
            "price": st.none() | NUMBERS | st.floats(0, 1e12),
            "own": JSON,
        },
    )
    return draw(
        st.fixed_dictionaries(
            {"user_id": NAMES, "candidates": st.lists(given, max_size=4)},
            optional={
                "timestamp": st.none() | st.integers(-1, 2**63),
                "deadline_ms": st.integers(-1, 10_001),
                "min_offset": st.none() | st.integers(0, 5),
                "partition": st.none(),
                "market": st.none() | NAMES,
                "explain": st.booleans(),
                "extend": st.integers(0, 1),
                "diversity": st.sampled_from([0, 0.0, 0.5]),
                "strange": JSON,
            },
        )
    )


@given(bodies(), st.booleans(), st.none() | st.integers(2, 3))
@settings(max_examples=500)
def test_a_plain_request_is_read_as_its_type_says(
    body: dict[str, object], ascii: bool, indent: int | None
) -> None:
    text = json.dumps(body, ensure_ascii=ascii, indent=indent).encode()
    asked = _lists.asked(text)
    if asked is None:
        return
    request = decode(RANK, text)  # what is read the short way is right
    same(asked, request)


@given(bodies())
@settings(max_examples=300)
def test_what_is_plain_is_not_read_the_long_way(body: dict[str, object]) -> None:
    text = msgspec.json.encode(body)
    try:
        request = decode(RANK, text)
    except Refused:
        assert _lists.asked(text) is None
        return
    simple = (request.min_offset, request.market, request.explain, request.extend, request.diversity)
    if (
        simple == (None, None, False, 0, 0)
        and max(len(one.listing_id.encode()) for one in (*request.candidates, Candidate("x"))) <= 256
    ):
        asked = _lists.asked(text)
        assert (asked is not None) == (len(request.user_id.encode()) <= 256)
        if asked is not None:
            same(asked, request)


@given(bodies(), st.integers(0, 400), st.binary(max_size=3))
def test_what_is_broken_is_never_read(body: dict[str, object], at: int, by: bytes) -> None:
    text = msgspec.json.encode(body)
    broken = text[: at % len(text)] + by + text[at % len(text) + 1 :]
    asked = _lists.asked(broken)
    if asked is not None:
        same(asked, decode(RANK, broken))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b'{"user_id":"u"}',
        b'{"user_id":"u","candidates":[]} x',
        b'{"user_id":"u","candidates":[{"listing_id":"a","score":01}]}',
        b'{"user_id":"u","candidates":[{"listing_id":"a","score":1.}]}',
        b'{"user_id":"u","candidates":[{"listing_id":"a","score":1e999}]}',
        b'{"user_id":"u","candidates":[{"listing_id":"a","score":-}]}',
        b'{"user_id":"u","candidates":[{"listing_id":"a","score":NaN}]}',
        b'{"user_id":"u","candidates":[{"listing_id":"\\ud800"}]}',
        b'{"user_id":"u","candidates":[{"listing_id":"\xff"}]}',
        b'{"user_id":"u","candidates":[{"listing_id":"a\x00"}]}',
        b'{"user_id":"u","candidates":[{"listing_id":"a"},]}',
        b'{"user_id":"u","candidates":[{"listing_id":"a","own":' + b"[" * 60 + b"]" * 60 + b"}]}",
        b'{"user_id":"u","candidates":[{"score":1}]}',
        b'{"user_id":"u","candidates":[{"listing_id":"a","pin":1}]}',
        b'{"user_id":"u","candidates":[' + b'{"listing_id":"a"},' * 1000 + b'{"listing_id":"a"}]}',
    ],
)
def test_what_is_not_plain_is_left_to_the_long_way(text: bytes) -> None:
    assert _lists.asked(text) is None


def same(asked: _lists.Asked, request: RankRequest) -> None:
    for name in (*request.__struct_fields__,):
        if name != "candidates":
            assert getattr(asked, name) == getattr(request, name), name
    given = asked.candidates
    assert given.ids == [one.listing_id for one in request.candidates]
    for ours, theirs in ((given.scores, "score"), (given.prices, "price")):
        expected = [getattr(one, theirs) for one in request.candidates]
        assert [None if math.isnan(value) else value for value in ours.tolist()] == expected
    assert all(one.pin is None for one in request.candidates)
