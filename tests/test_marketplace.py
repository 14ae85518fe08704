from __future__ import annotations

import numpy as np
import pytest

from models.datasets.marketplace import MONDAY, Marketplace, Visit
from models.events import Booking, Click, Leave, Rejection, Search, decode, encode
from models.sessions import WINDOWS


@pytest.fixture(scope="module")
def marketplace() -> Marketplace:
    return Marketplace(7)


@pytest.fixture(scope="module")
def visits(marketplace: Marketplace) -> list[Visit]:
    return list(marketplace.visits(1_500))


def rows(marketplace: Marketplace) -> dict[str, int]:
    return {listing.listing_id: row for row, listing in enumerate(marketplace.listings)}


def searches_of_the_booked(visits: list[Visit]) -> list[tuple[Visit, Search, list[str]]]:
    """Searches that show what is booked later in the visit, with what was clicked before in it."""
    found = []
    for visit in visits:
        clicked: list[str] = []
        for event in visit.events:
            if isinstance(event, Search) and visit.booked in [each.listing_id for each in event.results]:
                found.append((visit, event, list(clicked)))
            elif isinstance(event, Click):
                clicked.append(event.listing_id)
    return found


def mean_rank(ranks: list[int]) -> float:
    return float(np.mean(ranks))


def test_the_same_seed_gives_the_same_bytes_and_another_others(marketplace: Marketplace) -> None:
    first = [encode(event) for event in marketplace.events(60)]
    assert [encode(event) for event in Marketplace(7).events(60)] == first
    assert [encode(event) for event in Marketplace(8).events(60)] != first
    assert [encode(event) for event in marketplace.events(60, stream=1)] != first
    assert Marketplace(7).listings == marketplace.listings


def test_events_are_all_the_visits_events_in_time_order_and_overlap(marketplace: Marketplace) -> None:
    events = list(marketplace.events(300))
    order = [(event.timestamp, event.event_id) for event in events]
    assert order == sorted(order)
    assert len({event.event_id for event in events}) == len(events)
    played = [event for visit in marketplace.visits(300) for event in visit.events]
    assert sorted(event.event_id for event in played) == sorted(event.event_id for event in events)
    assert [event.event_id for event in played] != [event.event_id for event in events]
    assert events[0].timestamp >= MONDAY


def test_every_event_may_stand_on_the_topic(visits: list[Visit]) -> None:
    for visit in visits[:100]:
        for event in visit.events:
            assert decode(encode(event), visit.user_id.encode()) == event


def test_times_rise_within_a_visit_and_a_visitor_is_in_one_visit_at_a_time(visits: list[Visit]) -> None:
    left: dict[str, int] = {}
    for visit in visits:
        times = [event.timestamp for event in visit.events]
        assert times == sorted(times)
        assert times[0] > left.get(visit.user_id, 0) + WINDOWS.gap
        left[visit.user_id] = times[-1]
    assert len(left) < len(visits)


def test_clicks_name_a_search_of_the_visit_that_showed_the_listing(visits: list[Visit]) -> None:
    for visit in visits:
        shown: dict[str, list[str]] = {}
        for event in visit.events:
            if isinstance(event, Search):
                shown[event.search_id or event.event_id] = [each.listing_id for each in event.results]
                assert [each.position for each in event.results] == list(range(1, len(event.results) + 1))
            elif isinstance(event, Click | Booking) and event.search_id is not None:
                assert event.listing_id in shown[event.search_id]
            elif isinstance(event, Leave):
                assert event.of in {each.event_id for each in visit.events if isinstance(each, Click)}


def test_what_was_booked_is_the_last_booking_that_was_not_refused(visits: list[Visit]) -> None:
    booked = 0
    for visit in visits:
        bookings = [event.listing_id for event in visit.events if isinstance(event, Booking)]
        refused = [event.listing_id for event in visit.events if isinstance(event, Rejection)]
        assert [listing for listing in bookings if listing not in refused] == (
            [visit.booked] if visit.booked else []
        )
        booked += visit.booked is not None
    assert 0.4 < booked / len(visits) < 0.6


def test_visits_are_of_a_plausible_length(visits: list[Visit]) -> None:
    lengths = np.array([len(visit.events) for visit in visits])
    clicks = np.array([sum(isinstance(event, Click) for event in visit.events) for visit in visits])
    minutes = np.array(
        [(visit.events[-1].timestamp - visit.events[0].timestamp) / 60_000 for visit in visits]
    )
    assert 3 < np.median(clicks) < 10
    assert np.percentile(lengths, 99) < WINDOWS.events
    assert 2 < np.median(minutes) < 15
    gaps = [np.diff([event.timestamp for event in visit.events]).max(initial=0) for visit in visits]
    assert 0 < np.mean(np.array(gaps) > WINDOWS.gap) < 0.15


def test_the_searchs_own_order_knows_nothing_of_tastes(marketplace: Marketplace, visits: list[Visit]) -> None:
    row = rows(marketplace)
    places = []
    for visit in visits:
        for event in visit.events:
            if isinstance(event, Search):
                likes = marketplace.latent[[row[each.listing_id] for each in event.results]] @ visit.taste
                places.append(np.corrcoef(likes, np.arange(len(likes)))[0, 1])
    assert abs(np.mean(places)) < 4 * np.std(places) / np.sqrt(len(places)) + 0.01


def test_clicks_early_in_a_visit_tell_of_the_later_choice(
    marketplace: Marketplace, visits: list[Visit]
) -> None:
    row = rows(marketplace)
    own, guessed, known = [], [], []
    for visit, search, clicked in searches_of_the_booked(visits):
        if not clicked or visit.booked in clicked:
            continue
        ids = [each.listing_id for each in search.results]
        at = ids.index(visit.booked or "")
        vectors = marketplace.latent[[row[each] for each in ids]]
        towards = vectors @ marketplace.latent[[row[each] for each in clicked]].mean(0)
        own.append(at + 1)
        guessed.append(1 + int((towards > towards[at]).sum()))
        likes = vectors @ visit.taste
        known.append(1 + int((likes > likes[at]).sum()))
    assert len(own) > 200
    assert mean_rank(known) < mean_rank(guessed) < 0.7 * mean_rank(own)


def test_a_wrong_size_is_refused() -> None:
    for markets, listings in ((0, 1_500), (13, 1_500), (12, 500)):
        with pytest.raises(ValueError, match="markets of at least 50 listings"):
            Marketplace(1, markets=markets, listings=listings)
    assert len(Marketplace(1, markets=2, listings=150).listings) == 150
