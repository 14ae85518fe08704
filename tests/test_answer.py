"""The answer's list is written as its type says."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rank import Candidate
from serving import _answer
from serving.api import RankedListing

IDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=8, unique=True)
SCORES = st.floats(-1e9, 1e9, width=32)


@given(IDS, st.data())
def test_what_is_written_is_what_the_type_encodes(ids: list[str], data: st.DataObject) -> None:
    size = len(ids)
    order = data.draw(st.permutations(range(size)))
    scores = data.draw(st.none() | st.lists(SCORES, min_size=size, max_size=size))
    known = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    caller = data.draw(st.integers(0, size))
    written = _answer.results(tuple(Candidate(listing) for listing in ids), order, scores, known, caller)
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


def _unscored(one: RankedListing) -> RankedListing:
    return msgspec.structs.replace(one, score=None)


def test_lists_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        _answer.results((Candidate("a"),), [0], [1.0, 2.0], [True], 1)
    with pytest.raises(IndexError):
        _answer.results((Candidate("a"),), [1], None, [True], 1)
