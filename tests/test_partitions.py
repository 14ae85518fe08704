"""Peers, as they are given."""

from __future__ import annotations

import pytest

from models.errors import UserError
from serving.partitions import parse


def test_peers_are_addresses_with_partitions() -> None:
    assert parse(["http://b:8080=0-3,7", "https://c.example/=8", "http://b:8080=9"]) == {
        "http://b:8080": frozenset({0, 1, 2, 3, 7, 9}),
        "https://c.example": frozenset({8}),
    }


@pytest.mark.parametrize(
    "given", ["b:8080=1", "http://b:8080", "http://b:8080=", "http://=1", "http://b=x", "ftp://b=1"]
)
def test_what_is_no_peer_is_said(given: str) -> None:
    with pytest.raises(UserError, match="give URL=PARTITIONS"):
        parse([given])


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(UserError, match="--peer http://b:8080=0,7-3: 7-3 ends before it begins"):
        parse(["http://b:8080=0,7-3"])
