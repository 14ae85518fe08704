from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models import bundle, listings, ranker, types
from models.errors import UserError
from models.listings import Listing
from models.training import pipeline, user_types
from models.training.corpus import BOOKING, KINDS, REJECTION, Collector, Corpus
from models.training.run import Run
from models.training.user_types import RULES, UserTypes, read_rules
from models.types import Part, Saved, Types
from tests.made import MINUTE, START

torch.set_num_threads(1)
CLICK = KINDS.index("click")
KNOWN = [
    Listing(listing_id=f"l{row}", market="m", type=("flat", "room")[row % 2], price=10.0 + row)
    for row in range(20)
]
SMALL = UserTypes(dimensions=8, epochs=30, block=64)
CHEAP, DEAR = "0/0/0", "0/4/0"
"""Types of users who looked at a few cheap, or dear, listings."""


def corpus(*, refusals: bool = True, bookings: bool = True, sessions: int = 200) -> Corpus:
    """Users who look at two cheap listings book a cheap one, others a dear one, after two hosts of dear rooms refused them."""
    random = np.random.default_rng(0)
    collector = Collector()
    for user in range(sessions):
        low = 16 * (user % 2)  # rows 0 to 3 are the cheapest fifth, 16 to 19 the dearest
        rows = low + random.integers(0, 4, 2)
        wanted = low + int(random.integers(0, 4))
        actions = [(int(row), CLICK) for row in rows]
        if user % 2 and refusals:
            room = low + 1 + 2 * int(random.integers(2))
            actions += [(room, REJECTION)] * 2
        if bookings:
            actions.append((wanted, BOOKING))
        collector.add(
            user, [(row, kind, np.nan, START + at * MINUTE) for at, (row, kind) in enumerate(actions)]
        )
    return collector.corpus(listings.collect(KNOWN))


def learned(made: Corpus, settings: UserTypes = SMALL) -> Types:
    run = Run(np.random.default_rng(1))
    user_types.train(made, settings, run)
    assert run.types is not None
    return run.types


def similarity(found: Types, user: str, listing: str) -> float:
    return float(np.dot(found.saved.users[user], found.saved.listings[listing]))


def test_users_are_near_to_the_listings_that_their_type_books() -> None:
    found = learned(corpus(refusals=False))
    for kind in ("flat", "room"):
        assert similarity(found, CHEAP, f"{kind}/0") > similarity(found, CHEAP, f"{kind}/4") + 0.5
        assert similarity(found, DEAR, f"{kind}/4") > similarity(found, DEAR, f"{kind}/0") + 0.5


def test_what_hosts_refuse_moves_away_from_the_users_they_refuse() -> None:
    with_, without = learned(corpus()), learned(corpus(refusals=False))
    unweighed = learned(corpus(), UserTypes(dimensions=8, epochs=30, block=64, rejections=0.0))
    before = similarity(without, DEAR, "flat/4") - similarity(without, DEAR, "room/4")
    after = similarity(with_, DEAR, "flat/4") - similarity(with_, DEAR, "room/4")
    ignored = similarity(unweighed, DEAR, "flat/4") - similarity(unweighed, DEAR, "room/4")
    assert after > before + 0.1
    assert after > ignored + 0.1


def test_a_refused_booking_is_none_and_its_user_has_the_type_of_the_booking() -> None:
    collector = Collector()
    deeds = [(0, CLICK), (17, BOOKING), (2, BOOKING), (17, REJECTION), (5, REJECTION)]
    collector.add(7, [(row, kind, np.nan, START + at) for at, (row, kind) in enumerate(deeds)])
    made = collector.corpus(listings.collect(KNOWN))
    same = {name: name for name in read_rules(RULES).users()}
    sequences, refused = user_types._gathered(made, same)
    # Before the second booking: rows 0 and 17, of ranges 0 and 4, and something was booked.
    assert sequences == [[("0/2/1", 2)]]
    assert refused == [("0/0/0", 17), ("1/1/1", 5)]


def test_listings_have_the_vectors_of_their_types() -> None:
    vectors = user_types.train(corpus(), SMALL, Run(np.random.default_rng(1)))
    assert vectors.any(axis=1).tolist() == [row < 4 or row >= 16 for row in range(20)]
    np.testing.assert_array_equal(vectors[0], vectors[2])
    np.testing.assert_allclose(np.linalg.norm(vectors[16:], axis=1), 1, atol=1e-5)


def test_the_bundle_gets_the_types_and_a_ranking_finds_them() -> None:
    fitted = pipeline.learn(corpus(), method="user-types", settings=SMALL)
    assert fitted.training.metrics["rejections"] == 200
    assert fitted.training.metrics["user_types"] == 2
    assert fitted.types is not None
    made = bundle.assemble(
        listings=listings.collect(KNOWN),
        vectors=fitted.vectors,
        ranker=ranker.default(),
        training=fitted.training,
        types=fitted.types,
    )
    assert types.user_type(2, 0, 2, False) == CHEAP
    nearest = list(made.types.codes)[int(made.types.similarities[CHEAP].argmax())]
    assert nearest in ("flat/0", "room/0")
    assert made.types.of(made.listings).tolist()[:2] == [
        made.types.codes["flat/0"],
        made.types.codes["room/0"],
    ]
    again = types.decode(made.types.encode())
    assert again.saved == made.types.saved
    assert again.code(KNOWN[0], made.listings) == made.types.codes["flat/0"]


def test_rules_say_what_types_are_made_of(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(
        "[user]\nactions = [10]\nprice_ranges = [[0, 1, 2], [3, 4]]\nbooked = false\n"
        '[[listing]]\nof = "market"\n[[listing]]\nof = "price"\nedges = [15, 25]\n'
    )
    found = learned(corpus(), UserTypes(dimensions=8, epochs=2, rules=str(path)))
    assert sorted(found.saved.listings) == ["m/0", "m/2"]
    # Users whom the rules do not tell apart have one vector, under each name that a ranking may give them.
    assert found.saved.users["0/0/0"] == found.saved.users["1/2/1"] != found.saved.users["0/3/0"]
    assert "2/0/0" not in found.saved.users
    assert types.decode(found.encode()).code(KNOWN[17], listings.collect(KNOWN)) == found.codes["m/2"]


def test_a_part_of_a_type_is_a_value_or_a_range() -> None:
    listing = Listing(
        listing_id="a", price=30.0, attributes={"beds": 3.0, "has": ("pool", "bar"), "new": True}
    )
    values = {
        "4": Part("price_range"),
        "30": Part("price"),
        "1": Part("price", [20, 40]),
        "3": Part("attributes.beds"),
        "2": Part("attributes.has"),
        "True": Part("attributes.new"),
        "": Part("market"),
    }
    assert [part.value(listing, 4) for part in values.values()] == list(values)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[listing]]\nof = "colour"', "not rules of user types"),
        ("listing = []", "a part at least"),
        ('[[listing]]\nof = "type"\n[user]\nactions = [5]', "at 3 and 10 alone, as rankings do"),
        ('[[listing]]\nof = "type"\n[user]\nprice_ranges = [[0, 1]]', "each of 0 to 4 once"),
        ('[[listing]]\nof = "type"\n[user]\nage = 3', "unknown field `age`"),
        ("[[", "not rules of user types"),
    ],
)
def test_rules_that_a_ranking_could_not_follow_are_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        read_rules(path)
    with pytest.raises(UserError, match="No such file"):
        read_rules(tmp_path / "none.toml")


def test_without_bookings_or_types_it_is_refused_with_what_to_give() -> None:
    with pytest.raises(UserError, match="needs bookings by users who acted"):
        learned(corpus(bookings=False, refusals=False))
    plain = corpus()
    bare = listings.collect(Listing(listing_id=listing.listing_id) for listing in KNOWN)
    without = Corpus(bare, plain.tokens, plain.kinds, plain.seconds, plain.times, plain.starts, plain.users)
    with pytest.raises(UserError, match="all are of one type: give --listings FILE"):
        learned(without)
    with pytest.raises(UserError, match="booked 500 times each, and there are 0"):
        learned(plain, UserTypes(fewest=500))


def test_one_seed_gives_the_same_bits_and_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    made, settings = corpus(sessions=60), UserTypes(dimensions=4, epochs=8, fewest=2)
    whole = user_types.train(made, settings, Run(np.random.default_rng(1)))
    first = Run(np.random.default_rng(1), checkpoints=tmp_path)

    def end(done: int, total: int, note: str) -> None:
        if note.startswith("epoch 2"):
            raise KeyboardInterrupt

    first.on_progress = end
    with pytest.raises(KeyboardInterrupt):
        user_types.train(made, settings, first)
    again = Run(np.random.default_rng(1), checkpoints=tmp_path)
    assert user_types.train(made, settings, again).tobytes() == whole.tobytes()
    assert again.curve[-1].loss < again.curve[0].loss


def test_the_default_types_are_saved_as_before() -> None:
    assert b"by" not in Types(Saved(users={"u": [1.0]}, listings={"l": [1.0]})).encode()
