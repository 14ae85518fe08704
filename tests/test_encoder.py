from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.encoder import DECIMALS, Encoder, Mean
from models.sessions import Kind, Left
from models.space import Space
from tests.made import START, a_bundle, act, show, unit, visit

VECTORS = np.eye(4, dtype=np.float32)
ROW = {"a": 0, "b": 1, "c": 2, "d": 3}
KINDS: tuple[Kind, ...] = ("click", "wishlist", "inquiry", "booking", "rejection")

HALF = Mean(decay=0.5)


def encode(*events: object, settings: Mean = HALF) -> tuple[float, ...] | None:
    return Encoder(settings, Space(ROW, VECTORS)).encode(visit(*events))  # type: ignore[arg-type]


def test_no_session_or_nothing_known_in_it_has_no_embedding() -> None:
    assert Encoder(Mean(), Space(ROW, VECTORS)).encode(None) is None
    assert encode(act(0, "unknown")) is None
    assert encode(show(0, "a", "b")) is None
    assert encode(act(0, "a", "rejection")) is None


def test_a_listing_without_a_vector_has_no_embedding() -> None:
    assert Encoder(Mean(), Space({"a": 0}, np.zeros((1, 4), np.float32))).encode(visit(act(0, "a"))) is None


def test_each_step_halves_what_came_before() -> None:
    vector = encode(act(0, "a"), act(1, "b"), act(2, "c"))
    assert vector == pytest.approx(np.array([0.25, 0.5, 1, 0]) / np.sqrt(1 + 0.25 + 0.0625), abs=1e-6)


def test_a_repeated_listing_counts_again() -> None:
    assert encode(act(0, "a"), act(1, "a"), act(2, "b")) == pytest.approx(
        np.array([0.75, 1, 0, 0]) / 1.25, abs=1e-6
    )


def test_unknown_listings_and_rejections_are_no_steps() -> None:
    assert encode(act(0, "a"), act(1, "x"), act(2, "a", "rejection"), act(3, "b")) == encode(
        act(0, "a"), act(3, "b")
    )


def test_a_long_click_weighs_more_as_a_leave_says_or_the_next_event_shows() -> None:
    short = encode(act(0, "a"), act(10, "b"))
    derived = encode(act(0, "a"), act(61, "b"))
    said = encode(act(0, "a", event_id="e"), Left(START + 5_000, "x", "e", 75.0), act(10, "b"))
    assert short is not None
    assert derived is not None
    assert derived == said
    assert derived[0] / derived[1] == pytest.approx(1.5 * short[0] / short[1], abs=1e-4)


def test_a_booking_weighs_more_than_a_click() -> None:
    vector = encode(act(0, "a", "booking"), act(0, "b"), settings=Mean(decay=1.0, booking=4.0))
    assert vector == pytest.approx(np.array([4, 1, 0, 0]) / np.sqrt(17), abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 60), st.sampled_from(KINDS)), min_size=1, max_size=100))
def test_an_embedding_is_a_rounded_unit_vector_and_the_naive_fold(steps: list[tuple[int, Kind]]) -> None:
    made = a_bundle(50)
    events = [act(at, f"l{listing}", kind) for at, (listing, kind) in enumerate(steps)]
    vector = made.encode(visit(*events))
    fold = np.zeros(8)
    for event in events:
        if event.listing_id in made.listings.row and event.kind != "rejection":
            weight = getattr(made.manifest.encoder, event.kind)
            fold = (
                fold * made.manifest.encoder.decay
                + weight * made.vectors[made.listings.row[event.listing_id]]
            )
    if vector is None:
        assert not fold.any()
        return
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert vector == tuple(round(number, DECIMALS) for number in vector)
    assert vector == pytest.approx(fold / np.linalg.norm(fold), abs=2e-6)


def test_the_bits_do_not_depend_on_which_other_listings_a_bundle_has() -> None:
    vectors = unit(1_000, 32)
    chosen = [3, 999, 17, 3]
    session = visit(*(act(at, f"l{row}") for at, row in enumerate(chosen)))
    whole = Encoder(Mean(), Space({f"l{row}": row for row in range(1_000)}, vectors))
    part = Encoder(Mean(), Space({"l999": 0, "l17": 1, "l3": 2}, vectors[[999, 17, 3]].copy()))
    assert whole.encode(session) == part.encode(session)
