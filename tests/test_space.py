from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models import _kernel
from models.rank import Candidate, Candidates
from models.space import Space
from tests.made import unit


def table(directory: _kernel.Directory) -> _kernel.Table:
    return _kernel.Table(directory, unit(3, 4), np.zeros(3, np.float32), np.zeros(3, np.int32), [None] * 3)


def rows(ids: list[str], table: _kernel.Table) -> list[int]:
    given = Candidates([Candidate(listing) for listing in ids])
    given.look_up(table)
    return given.rows.tolist()  # type: ignore[no-any-return]


IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


@given(st.lists(IDS, unique=True, max_size=60), st.lists(st.tuples(IDS, st.integers(-1, 1_000)), max_size=60))
def test_the_kernels_directory_is_a_dictionary(ids: list[str], changes: list[tuple[str, int]]) -> None:
    directory, expected = _kernel.Directory(ids), {listing: row for row, listing in enumerate(ids)}
    for listing, row in changes:
        directory.set(listing, row)
        expected[listing] = row
    asked = [*expected, "nobody knows this"]
    assert rows(asked, table(directory)) == [expected.get(listing, -1) for listing in asked]


def test_what_is_put_and_dropped_is_the_same_for_both() -> None:
    vectors = unit(3, 4)
    space = Space({"a": 0, "b": 1}, vectors[:2].copy())
    names = ["a", "b", "c", "d"]

    def found() -> list[int]:
        found = rows(names, space.table)
        assert found == [space.row.get(name, -1) for name in names]
        return found

    assert found() == [0, 1, -1, -1]
    assert space.put("c", vectors[2], price=8.0, market="rome") == 2
    assert found() == [0, 1, 2, -1]
    assert space.log_prices[2] == 3
    assert space.markets == [None, None, "rome"]
    space.put("a", vectors[2])
    assert found() == [3, 1, 2, -1]
    space.drop("a", 0)
    space.drop("c", None)
    assert found() == [0, 1, -1, -1]
    assert space.put("c", vectors[1]) == 2
    np.testing.assert_array_equal(space.vectors[2], vectors[1])
    assert np.isnan(space.log_prices[2])


def test_candidates_say_what_the_caller_said_and_whether_a_listing_stands_twice() -> None:
    made = table(_kernel.Directory(["a", "b"]))
    one = [Candidate("b", 2.0), Candidate("x", None, 3.0), Candidate("a", pin=1)]
    given = Candidates(one)
    given.look_up(made)
    assert given.ids == ["b", "x", "a"]
    assert given.rows.tolist() == [1, -1, 0]
    assert (len(given), given.unknown) == (3, 1)
    np.testing.assert_array_equal(given.scores, [2.0, np.nan, np.nan])
    np.testing.assert_array_equal(given.prices, [np.nan, 3.0, np.nan])
    assert (given.once, given.pinned, given.pins) == (True, True, [None, None, 1])
    twice = Candidates([*one[:2], Candidate("x")])
    twice.look_up(made)
    assert (twice.once, twice.pinned) == (False, False)
