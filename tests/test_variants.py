"""Who gets which variant."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import UserError
from serving.variants import EVERYONE, Variant, Variants, parse

USERS = [f"user-{number}" for number in range(20_000)]


def test_without_variants_all_have_the_default() -> None:
    assert Variants().of("anybody") == EVERYONE == Variant("default", 1.0)


def test_what_is_given_is_understood() -> None:
    made = parse(["control=0.1:caller", "same=.2", "new=0.3:bundles/0123456789abcdef"])
    assert made.all == [
        Variant("control", 0.1, caller=True),
        Variant("same", 0.2),
        Variant("new", 0.3, bundle=Path("bundles/0123456789abcdef")),
        Variant("default", 0.4),
    ]


def test_shares_are_what_was_asked_for() -> None:
    made = parse(["a=0.1:caller", "b=0.25"], "spring")
    for variant in made.all:
        found = sum(made.of(user) == variant for user in USERS) / len(USERS)
        assert found == pytest.approx(variant.share, abs=0.012)


def test_a_user_stays_with_a_variant_in_every_process_and_as_it_grows() -> None:
    # Fixed: a change here would deal out the users of running experiments anew.
    assert [parse(["a=0.5"], "e").of(f"u{at}").name for at in range(8)] == [
        "default",
        "default",
        "default",
        "default",
        "a",
        "a",
        "a",
        "a",
    ]
    small, large = parse(["a=0.1"], "e"), parse(["a=0.3"], "e")
    assert {user for user in USERS if small.of(user).name == "a"} < {
        user for user in USERS if large.of(user).name == "a"
    }


def test_experiments_deal_independently() -> None:
    one, two = parse(["a=0.5"], "one"), parse(["a=0.5"], "two")
    both = sum(one.of(user).name == two.of(user).name == "a" for user in USERS) / len(USERS)
    assert both == pytest.approx(0.25, abs=0.012)


def test_all_users_may_have_variants() -> None:
    made = parse(["a=0.7", "b=0.2", "c=0.1"])
    assert {made.of(user).name for user in USERS} == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["a"], "give NAME=SHARE"),
        (["a=1.5"], "share above 0 and at most 1"),
        (["a=0"], "share above 0"),
        (["a=0.1.2"], "give NAME=SHARE"),
        (["=0.1"], "give NAME=SHARE"),
        (["a=0.1:"], "give NAME=SHARE"),
        (["a=0.1", "a=0.2"], "was given before"),
        (["default=0.1"], "the rest of the users"),
        (["a=0.6", "b=0.6"], "add up to more than 1"),
    ],
)
def test_what_is_no_variant_is_said(given: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse(given)
