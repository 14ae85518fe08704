from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from insession.main import main
from models.datasets import checks, joins
from models.datasets import distinct as distinct_
from models.datasets.checks import Check, rare
from models.datasets.distinct import Distinct, Homes
from models.datasets.joins import Choices
from models.datasets.validation import validate
from models.datasets.visits import Visits
from models.events import Booking, Click, Event, Leave, Result, Search, UserEvent, encode
from models.listings import Listing
from models.recording import Header, Record, Writer, partition_of
from tests.made import MINUTE, START, record

HOUR = 60 * MINUTE
Checks = dict[str, Check]


def click(number: int, user: str = "u", *, at: int | None = None, **more: str) -> Click:
    """A click, a minute after the one before it."""
    time = START + (number * MINUTE if at is None else at)
    named = {"event_id": f"e{number}", "listing_id": f"l{number % 7}", **more}
    return Click(user_id=user, timestamp=time, **named)


def lists(number: int, place: Callable[[int], int], size: int = 10) -> list[Event]:
    """Searches, and a click in each list at a place from 1."""
    found: list[Event] = []
    for at in range(number):
        user, time = f"u{at}", START + at * MINUTE
        shown = tuple(Result(listing_id=f"l{p}", position=p) for p in range(1, size + 1))
        found.append(Search(event_id=f"s{at}", user_id=user, timestamp=time, results=shown))
        found.append(
            Click(
                event_id=f"c{at}",
                user_id=user,
                timestamp=time + 1000,
                listing_id=f"l{place(at)}",
                search_id=f"s{at}",
            )
        )
    return found


def look(folder: Path, events: Iterable[Event], listings: Iterable[Listing] | None = None) -> Checks:
    _, found = validate(record(folder / "r.jsonl", events), listings)
    return {check.what: check for check in found}


def written(folder: Path, records: Iterable[Record], partitions: int = 2) -> Checks:
    """The checks of records as they are."""
    with Writer(folder / "r.jsonl", Header(topic="clicks", partitions=partitions)) as writer:
        for one in records:
            writer.write(one)
    return {check.what: check for check in validate(folder / "r.jsonl")[1]}


def as_record(
    event: UserEvent, *, partition: int | None = None, offset: int | None = None, at: int = 0
) -> Record:
    key = event.user_id.encode()
    home = partition_of(key, 2) if partition is None else partition
    return Record(home, offset, at or event.timestamp, key, (), encode(event))


def test_a_good_recording_passes(tmp_path: Path) -> None:
    known = [Listing(listing_id=f"l{number}", market="m", price=50.0 + number) for number in range(11)]
    events = [*lists(200, lambda at: 1 + at % 5), *(click(n, "v", market="m") for n in range(5))]
    events.append(Booking(event_id="b", user_id="v", timestamp=START + HOUR, listing_id="l1", market="m"))
    events.append(Leave(event_id="x", user_id="v", timestamp=START + HOUR, of="b", seconds=5))
    found = look(tmp_path, sorted(events, key=lambda event: event.timestamp), known)
    assert {check.what: check.status for check in found.values() if check.status not in ("pass", "skip")} == {
        "visits": "fail"  # each of the searches' visits is one click
    }
    assert {check.what for check in found.values() if check.status == "skip"} == {
        *("offsets", "gaps", "prices shown")
    }


def test_what_is_no_event_is_counted_and_the_first_is_named(tmp_path: Path) -> None:
    good = [as_record(click(number)) for number in range(300)]
    bad = Record(0, None, START, b"u", (), b'{"type":"dance"}')
    assert written(tmp_path, [*good, bad])["readable"].status == "warn"
    found = written(tmp_path, [good[0], bad, bad])["readable"]
    assert found.status == "fail"
    assert found.found.startswith("2 of 3 records are unreadable (first line 3: Invalid value 'dance'")
    assert "docs/topics.md" in found.todo


def test_without_clicks_there_is_nothing_to_learn_from(tmp_path: Path) -> None:
    search = Search(event_id="s", user_id="u", timestamp=START, results=())
    found = look(tmp_path, [search])["kinds"]
    assert (found.status, found.found) == ("fail", "1 search")
    assert look(tmp_path, [click(1)])["kinds"].status == "warn"
    assert look(tmp_path, [])["kinds"].status == "fail"


def test_late_and_early_events_are_those_that_a_worker_drops(tmp_path: Path) -> None:
    found = look(tmp_path, [click(60), click(49)])
    assert (found["late"].status, found["order"].status) == ("fail", "fail")
    assert "11 min" not in found["late"].todo
    assert "660000 ms behind" in found["late"].found
    assert look(tmp_path, [click(60), click(51)])["late"].status == "pass"
    early = as_record(click(6), at=START)
    assert written(tmp_path, [early])["ahead"].status == "fail"
    assert written(tmp_path, [as_record(click(4), at=START)])["ahead"].status == "pass"


def test_a_fast_clock_makes_nobody_late(tmp_path: Path) -> None:
    fast = as_record(click(4, at=HOUR), at=START + 2)
    found = written(tmp_path, [fast, as_record(click(5, at=3))])
    assert (found["ahead"].numbers["wrong"], found["late"].numbers["wrong"]) == (1, 0)


def test_offsets_must_rise_within_a_partition(tmp_path: Path) -> None:
    events = [click(1), click(2)]
    rising = [as_record(event, offset=at, partition=0) for at, event in enumerate(events)]
    assert written(tmp_path, rising)["offsets"].status == "pass"
    same = [as_record(event, offset=5, partition=0) for event in events]
    assert written(tmp_path, same)["offsets"].status == "fail"
    apart = [as_record(click(at, f"u{at}"), offset=5, partition=at) for at in (0, 1)]
    assert written(tmp_path, apart)["offsets"].status == "pass"


def test_seconds_for_milliseconds_are_seen(tmp_path: Path) -> None:
    found = look(tmp_path, [click(1, at=1_600_000_000 - START)])["years"]
    assert found.status == "fail"
    assert "seconds" in found.todo


def test_a_user_on_two_partitions_is_seen(tmp_path: Path) -> None:
    found = written(tmp_path, [as_record(click(at), partition=at) for at in (0, 1)])["partitions"]
    assert (found.status, found.found[:9]) == ("fail", "1 of 1 us")


def test_of_users_on_many_partitions_each_counts_once(tmp_path: Path) -> None:
    events = [as_record(click(at, f"u{at % 7}"), partition=at % 4) for at in range(56)]
    stays = [as_record(click(at, "stays"), partition=1) for at in (60, 61)]
    found = written(tmp_path, [*events, *stays], 4)["partitions"]
    assert found.numbers == {"wrong": 7, "of": 8}


@pytest.mark.parametrize(
    ("wrong", "of", "percent"),
    [
        (2_996, 3_000, "99.87 %"),
        (199, 200, "99.5 %"),
        (3, 3, "100 %"),
        (999_999, 1_000_000, "99.9999 %"),
        (1, 2, "50 %"),
        (1, 3_000, "0.033 %"),
        (1, 1_000_000, "0.0001 %"),
    ],
)
def test_only_all_are_a_hundred_percent(wrong: int, of: int, percent: str) -> None:
    assert f"({percent})" in rare("what", wrong, of, "are", "todo").found


def test_an_event_id_that_comes_twice_is_seen_unless_the_user_is_another(tmp_path: Path) -> None:
    assert look(tmp_path, [click(1), click(1)])["duplicates"].numbers == {"wrong": 1, "of": 2}
    assert look(tmp_path, [click(1), click(1, "v")])["duplicates"].status == "pass"


def test_search_ids_must_be_of_a_search_of_the_same_user(tmp_path: Path) -> None:
    search = Search(event_id="a", search_id="s", user_id="u", timestamp=START, results=())
    good = click(1, search_id="s")
    assert look(tmp_path, [search, good])["search ids"].status == "pass"
    found = look(tmp_path, [search, good, click(2, "v", search_id="s"), click(3, search_id="none")])
    assert found["search ids"].numbers == {"wrong": 2, "of": 3}
    assert "1 of them one of another user" in found["search ids"].found


def test_leaves_must_be_of_an_event_of_the_same_user(tmp_path: Path) -> None:
    leave = Leave(event_id="x", user_id="u", timestamp=START + HOUR, of="e1", seconds=3)
    assert look(tmp_path, [click(1), leave])["leaves"].status == "pass"
    assert look(tmp_path, [click(1, "v"), leave])["leaves"].status == "fail"


def test_actions_on_listings_that_are_not_known_are_seen(tmp_path: Path) -> None:
    events = [click(number) for number in range(7)]
    found = look(tmp_path, events, [Listing(listing_id=f"l{number}") for number in range(6)])["listings"]
    assert (found.status, found.numbers) == ("fail", {"count": 1, "of": 7})
    assert look(tmp_path, events)["listings"].status == "skip"


def test_positions_that_do_not_rise_are_seen(tmp_path: Path) -> None:
    shown = (Result(listing_id="a", position=1), Result(listing_id="b", position=1))
    search = Search(event_id="a", user_id="u", timestamp=START, results=shown)
    assert look(tmp_path, [search])["positions"].status == "fail"


def test_a_choice_that_the_list_has_not_is_seen(tmp_path: Path) -> None:
    assert look(tmp_path, lists(5, lambda _: 11))["choices"].numbers == {"count": 5, "of": 5}


def test_choices_that_all_stood_first_are_seen(tmp_path: Path) -> None:
    assert look(tmp_path, lists(120, lambda _: 1))["places"].status == "fail"
    assert look(tmp_path, lists(120, lambda at: 1 + at % 3))["places"].status == "pass"
    assert look(tmp_path, lists(20, lambda _: 1))["places"].status == "skip"


def test_choices_no_higher_than_at_random_are_seen(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    places = rng.permutation(np.arange(200) % 10) + 1
    found = look(tmp_path, lists(200, lambda at: int(places[at])))["places"]
    assert found.status == "warn"
    assert "the mean place is 5.5, at random it would be 5.5" in found.found


def test_visits_part_at_the_gap_whatever_partitions_interleave(tmp_path: Path) -> None:
    events = [click(n, user, at=n * 20 * MINUTE + (n > 2) * 20 * MINUTE) for n in range(5) for user in "abc"]
    found = look(tmp_path, events)["visits"]
    assert found.found.startswith("0 of 6 visits")
    assert found.numbers == {"count": 0, "of": 6}


def test_user_ids_that_change_with_every_click_are_seen(tmp_path: Path) -> None:
    assert look(tmp_path, (click(n, f"u{n}") for n in range(150)))["visits"].status == "fail"


def test_one_id_for_many_people_is_seen(tmp_path: Path) -> None:
    found = look(tmp_path, (click(n, "anonymous") for n in range(800)))
    assert (found["long visits"].status, found["robots"].status) == ("fail", "fail")
    assert "'anonymous'" in found["robots"].found


def test_who_clicks_faster_than_anybody_is_a_robot(tmp_path: Path) -> None:
    people = [click(n, f"u{n % 30}", at=n * MINUTE // 6) for n in range(3_000)]
    fast = [click(n, "robot", at=n * 900) for n in range(60)]
    found = look(tmp_path, sorted([*people, *fast], key=lambda event: event.timestamp))["robots"]
    assert (found.status, found.numbers["wrong"]) == ("warn", 60)
    assert "by 1 users" in found.found
    assert "('robot')" in found.found
    slower = look(tmp_path, (click(n, at=n * 1100) for n in range(60)))["robots"]
    assert slower.status == "pass"


def test_times_in_days_are_seen(tmp_path: Path) -> None:
    assert look(tmp_path, (click(n, at=0) for n in range(150)))["gaps"].status == "fail"


def test_a_listing_in_two_markets_is_seen(tmp_path: Path) -> None:
    found = look(tmp_path, [click(1, market="a"), click(8, market="b"), click(2, market="a")])["markets"]
    assert (found.status, found.numbers) == ("warn", {"count": 1, "of": 2})


def test_a_listing_in_three_markets_is_one_listing(tmp_path: Path) -> None:
    events = [*(click(7 * at, market=f"m{at}") for at in range(3)), click(1, market="m")]
    found = look(tmp_path, events)["markets"]
    assert found.numbers == {"count": 1, "of": 2}


@pytest.mark.parametrize(
    ("prices", "says"),
    [
        ((17, 439, 106, 30, 200), "17 to 439, half at most 106"),
        ((1e11, 1e11), "100,000,000,000 to 100,000,000,000, half at most 100,000,000,000"),
        ((0.25, 19.99, 1234), "0.25 to 1,234, half at most 19.99"),
        ((12_345.5, 12_345.5), "12,345.50 to 12,345.50, half at most 12,350"),
    ],
)
def test_prices_are_told_as_they_are(tmp_path: Path, prices: tuple[float, ...], says: str) -> None:
    known = [Listing(listing_id=f"l{at}", price=price) for at, price in enumerate(prices)]
    assert look(tmp_path, [], known)["prices of listings"].found == says


def test_prices_of_two_currencies_and_of_nothing_are_seen(tmp_path: Path) -> None:
    def search(*prices: float) -> Search:
        shown = tuple(Result(listing_id=f"l{p}", position=p, price=x) for p, x in enumerate(prices, 1))
        return Search(event_id="s", user_id="u", timestamp=START, results=shown)

    assert look(tmp_path, [search(5, 90, 200)])["prices shown"].status == "pass"
    assert look(tmp_path, [search(5, 90, 60_000)])["prices shown"].status == "warn"
    free = look(tmp_path, [search(5, 90, 0)])["prices shown"]
    assert (free.status, free.found[:13]) == ("warn", "1 of 3 are 0;")
    catalogue = [Listing(listing_id="a", price=0.01), Listing(listing_id="b", price=500)]
    assert look(tmp_path, [], catalogue)["prices of listings"].status == "warn"


def test_only_the_newest_lists_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joins, "RESULTS", 25)
    choices = Choices()
    events = lists(5, lambda _: 1)
    for event in (*events[::2], *events[1::2]):
        assert not isinstance(event, Leave)
        choices.add(event)  # type: ignore[arg-type]
    assert (choices.lists, choices.positions) == (5, {1: 2})


def test_only_open_visits_are_held() -> None:
    visits = Visits()
    for number in range(10_000):
        visits.add(0, f"u{number}", number * MINUTE)
    assert sum(len(users) for users in visits._open.values()) == 41
    visits.end()
    assert visits.lengths == {1: 10_000}


def test_hashes_count_what_is_different_and_tell_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    distinct = Distinct()
    assert len(distinct) == 0
    assert not distinct.holds(np.array([5])).any()
    distinct._due = 10
    for number in range(1_000):
        distinct.add(("u", number % 300))
    assert len(distinct) == 300
    hashes = np.array([hash(("u", number)) for number in (0, 299, 300, 1_000_000)])
    assert distinct.holds(hashes).tolist() == [True, True, False, False]


def test_things_in_several_places_are_counted_whenever_they_are_sorted_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distinct_, "GATHER", 10)
    homes = Homes()
    assert homes.count() == (0, 0)
    for number in range(1_000):
        homes.add(number % 300, 0 if number % 300 < 250 else number // 300)
    assert homes.count() == (300, 50)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["insession", "validate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else 0, output.out, output.err

    return run


def test_the_command_exits_with_one_where_a_check_fails_and_says_what_to_do(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    path = record(tmp_path / "bad.jsonl.zst", [click(1), click(1)])
    code, output, _ = run(path)
    assert code == 1
    assert "FAIL  duplicates: 1 of 2 events have the id of another event of their user (50 %)" in output
    assert "      give each event an id of its own" in output
    code, output, _ = run(path, "--json")
    report = json.loads(output)
    assert code == 1
    assert (report["records"], report["failed"]) == (2, ["duplicates"])
    assert {check["status"] for check in report["checks"]} <= {"pass", "warn", "fail", "skip"}
    assert all(check["todo"] for check in report["checks"] if check["status"] in ("warn", "fail"))


def test_a_warning_is_no_failure(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    path = record(tmp_path / "good.jsonl.zst", [click(1), click(2)])
    (tmp_path / "listings.jsonl").write_text('{"listing_id":"l1"}\n{"listing_id":"l2"}\n')
    code, output, _ = run(path, "--listings", tmp_path / "listings.jsonl")
    assert code == 0
    assert "warn  kinds: 2 click" in output
    assert "ok    listings: 0 of 2 actions" in output


def test_what_is_no_recording_is_refused(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "no.jsonl").write_text("hello\n")
    code, _, errors = run(tmp_path / "no.jsonl")
    assert code == 2
    assert errors.startswith(f"insession: {tmp_path / 'no.jsonl'}:1: not the first line of a recording")


def test_every_threshold_is_explained_where_the_checks_are() -> None:
    text = (Path(__file__).parent.parent / "docs" / "recording.md").read_text(encoding="utf-8")
    for share in (
        checks.WRONG,
        checks.UNKNOWN,
        checks.FIRST,
        *checks.SINGLE,
        *checks.LONG,
        *checks.SAME_TIME,
    ):
        assert f"{100 * share:g} %" in text
    assert f"{checks.SPREAD:,} times" in text
    assert f"{checks.ENOUGH} choices, visits or gaps" in text
