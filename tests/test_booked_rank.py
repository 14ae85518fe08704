from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from insession.booked_rank import table
from insession.evaluate import command
from models import bundle
from models.bundle import Bundle
from models.datasets.marketplace import Marketplace
from models.errors import UserError
from models.evaluation import booked_rank
from models.evaluation.booked_rank import Booked, bookings, ranks
from models.events import Booking, Click, Event, Forget, Result, Search
from models.training import pipeline
from tests.made import MINUTE, START, a_bundle, record

ANGLES = (0.0, 0.1, 0.5, 1.5, 3.0)


@pytest.fixture
def made() -> Bundle:
    """l0 to l4 on a circle, the later the farther from l0; l5 has no vector."""
    vectors = [[np.cos(angle), np.sin(angle)] for angle in ANGLES] + [[0.0, 0.0]]
    return a_bundle(vectors=np.array(vectors, np.float32))


def search(at: int, *results: str) -> Search:
    shown = tuple(Result(listing_id=name, position=place) for place, name in enumerate(results, 1))
    return Search(event_id=f"s{at:03d}", user_id="u", timestamp=START + at * MINUTE, results=shown)


def did(kind: type, at: int, listing: str, user: str = "u") -> Event:
    event: Event = kind(
        event_id=f"{kind.__name__}{at:03d}", user_id=user, timestamp=START + at * MINUTE, listing_id=listing
    )
    return event


def test_a_visits_first_booking_is_found_with_what_was_shown_and_clicked_before() -> None:
    events = [
        did(Booking, 6, "a"),
        search(0, "c", "a", "b"),
        did(Click, 1, "b"),
        did(Click, 2, "a"),
        search(3, "d", "c"),
        did(Click, 4, "c"),
        did(Booking, 7, "b"),  # a second one of the visit
        search(8, "z"),
        search(60, "x", "y"),  # a new visit
        did(Click, 61, "y"),
        did(Booking, 62, "x"),
    ]
    first, second = bookings(events)
    assert first == Booked("a", START + 6 * MINUTE, ("c", "d", "a", "b"), ("b", "c"))
    assert second == Booked("x", START + 62 * MINUTE, ("x", "y"), ("y",))
    assert bookings(events, since=START + 7 * MINUTE) == [second]


def test_bookings_that_say_nothing_are_passed_over() -> None:
    never_shown = [search(0, "a"), did(Click, 1, "a"), did(Booking, 2, "b")]
    no_other_click = [search(0, "a"), did(Click, 1, "a"), did(Booking, 2, "a")]
    forget = Forget(event_id="f", user_id="u", timestamp=START + MINUTE)
    forgotten = [search(0, "a", "b"), did(Click, 1, "b"), did(Booking, 2, "a"), forget]
    assert bookings(never_shown) == bookings(no_other_click) == bookings(forgotten) == []


def test_the_rank_is_that_of_the_cosine_with_the_clicked_listing(made: Bundle) -> None:
    booked = Booked("l2", START, ("l3", "l1", "l4", "l2", "l0"), ("l4", "l3", "l0"))
    # Of l0 the nearest are l1 and l2; of l3 l2; of l4 l3 and l2. The last click comes first.
    assert ranks(booked, made) == [2, 1, 2]
    # As shown, without the clicked listing: l0 is behind l2, l3 and l4 before it.
    assert ranks(booked, None) == [4, 3, 3]


def test_candidates_without_a_vector_come_last_and_all_stand_as_shown_where_the_clicked_one_has_none(
    made: Bundle,
) -> None:
    candidates = ("l5", "l3", "l0", "unknown")
    assert ranks(Booked("l5", START, candidates, ("l0",)), made) == [2]
    assert ranks(Booked("unknown", START, candidates, ("l0",)), made) == [3]
    assert ranks(Booked("l3", START, candidates, ("l5", "unknown", "nobody")), made) == [2, 2, 1]


def test_at_most_seventeen_clicks_are_looked_at(made: Bundle) -> None:
    booked = Booked("l1", START, ("l0", "l1"), ("l2",) * 40)
    assert len(ranks(booked, made)) == booked_rank.MOST == 17


def test_the_curve_has_the_means_of_a_hand(made: Bundle) -> None:
    found = [
        Booked("l2", START, ("l3", "l1", "l4", "l2", "l0"), ("l4", "l3", "l0")),
        Booked("l1", START, ("l4", "l3", "l1"), ("l0",)),
    ]
    report = booked_rank.report(found, {"made": made}, 1)
    assert (report["n"], report["clicks"], report["candidates"]) == (2, 4, 4.0)
    shown, ours = report["results"]
    assert [(point["clicks_before"], point["n"]) for point in ours["curve"]] == [(3, 1), (2, 1), (1, 2)]
    assert [point["mean_rank"] for point in ours["curve"]] == [2, 1, (2 + 1) / 2]
    assert [point["mean_rank"] for point in shown["curve"]] == [3, 3, (4 + 3) / 2]
    assert (shown["mean_rank"], ours["mean_rank"]) == ((4 + 3 + 3 + 3) / 4, (2 + 1 + 2 + 1) / 4)
    assert ours["versus"]["difference"] == ours["mean_rank"] - shown["mean_rank"]
    assert ours["versus"]["p"] == pytest.approx(0.5, abs=0.02)  # two visits: one sign in two is as far


def test_the_command_prints_a_curve_for_each_bundle_and_warns_of_what_it_has_seen(tmp_path: Path) -> None:
    path = record(tmp_path / "r.jsonl.zst", Marketplace(3, markets=2, listings=300).events(250))
    bundle.write(tmp_path / "bundles", pipeline.train(path))
    arguments = ["booked-rank", str(path), "--bundle", str(tmp_path / "bundles")]
    result = CliRunner().invoke(command, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    assert CliRunner().invoke(command, [*arguments, "--json"]).stdout == result.stdout
    report = json.loads(result.stdout)
    assert [row["name"] for row in report["results"]] == ["shown", "bundles"]
    assert "bookings are from the time this bundle was trained on" in report["warnings"][0]
    text = table(report)
    assert text.splitlines()[-1].startswith(f"n = {report['n']:,} bookings")
    assert CliRunner().invoke(command, arguments).stdout.strip() == text
    nothing = CliRunner().invoke(command, [*arguments, "--from", "2030-01-01"])
    assert isinstance(nothing.exception, UserError)
    assert "no booking of a listing shown" in str(nothing.exception)
