from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from insession.evaluate import command
from models import bundle
from models.bundle import Bundle
from models.datasets import importing, trivago
from models.datasets.marketplace import Marketplace
from models.errors import UserError
from models.evaluation import rerank
from models.events import Booking, Click, Event, Search, Wishlist
from models.events import Result as Shown
from models.features import FEATURES, KNOTS, RECENCY, RECENCY_OUTSIDE
from models.ranker import Ranker
from models.recording import Header, Record, Writer, read
from models.sessions import DAY
from models.training import pipeline
from tests.made import MINUTE, START, a_bundle, record


def search(at: int, user: str, *results: str, **more: object) -> Search:
    """A search, named `s` and its minute, `at` minutes after START."""
    shown = tuple(Shown(listing_id=name, position=place) for place, name in enumerate(results, 1))
    return Search(
        event_id=f"s{at}", user_id=user, timestamp=START + at * MINUTE, results=shown, **more  # type: ignore[arg-type]
    )  # fmt: skip


def click(at: int, user: str, name: str, of: str | None, kind: type = Click) -> Event:
    made: Event = kind(
        event_id=f"c{at}", user_id=user, timestamp=START + at * MINUTE, listing_id=name, search_id=of
    )
    return made


EVENTS = [
    search(0, "a", "l1", "l2", "l3"),  # nothing is known of `a` yet
    click(1, "a", "l2", "s0"),
    search(2, "a", "l1", "l2", "l3"),  # chosen l2, which was seen
    click(3, "a", "l2", "s2"),
    click(4, "a", "l1", "s2"),  # ... and l1 too, but later
    search(5, "b", "l1", "l2", "l3"),  # no choice
    search(6, "a", "l3", "l2", "l1"),  # chosen l3, which was not seen
    click(7, "a", "l3", "s6"),
    search(40, "a", "l4", "l3"),  # a new session: l3 is not seen in it
    click(41, "a", "l3", "s40", Booking),
]


def seen_first_ranker() -> Ranker:
    weights = np.zeros((len(FEATURES), KNOTS), np.float32)
    weights[RECENCY, 1:] = weights[RECENCY_OUTSIDE, 1:] = np.arange(KNOTS, 1, -1)
    return Ranker(weights)


@pytest.fixture
def made(tmp_path: Path) -> Bundle:
    bundle.write(tmp_path / "bundles", a_bundle(learned=seen_first_ranker()))
    return bundle.load(tmp_path / "bundles")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return record(tmp_path / "r.jsonl.zst", EVENTS)


def run(recording: Path, *more: str) -> Result:
    bundles = str(recording.parent / "bundles")
    return CliRunner().invoke(command, ["rerank", str(recording), "--bundle", bundles, *more])


def test_mrr_and_mean_rank_are_what_a_hand_computes(made: Bundle, recording: Path) -> None:
    report = json.loads(run(recording, "--json").stdout)
    assert report["n"] == 4
    assert [(row["name"], row["targets"]) for row in report["results"]] == [
        (name, targets)
        for name in ("shown", "seen-first", "insession")
        for targets in ("all", "seen", "unseen")
    ]
    # The ranks: shown 2, 2, 1, 2; seen first 2, 1, 3, 2. Only the second target was seen.
    expected = {
        ("shown", "all"): (4, (1 / 2 + 1 / 2 + 1 + 1 / 2) / 4, 7 / 4),
        ("shown", "seen"): (1, 1 / 2, 2),
        ("shown", "unseen"): (3, (1 / 2 + 1 + 1 / 2) / 3, 5 / 3),
        ("seen-first", "all"): (4, (1 / 2 + 1 + 1 / 3 + 1 / 2) / 4, 8 / 4),
        ("seen-first", "seen"): (1, 1, 1),
        ("seen-first", "unseen"): (3, (1 / 2 + 1 / 3 + 1 / 2) / 3, 7 / 3),
    }
    for row in report["results"]:
        name = "seen-first" if row["name"] == "insession" else row["name"]
        n, mrr, mean_rank = expected[name, row["targets"]]
        assert row["n"] == n
        assert row["mrr"] == pytest.approx(mrr)
        assert row["mean_rank"] == pytest.approx(mean_rank)
        assert row["mrr_ci"][0] <= row["mrr"] + 1e-9
        assert row["mrr_ci"][1] >= row["mrr"] - 1e-9


def test_a_scored_search_says_what_an_online_run_needs(made: Bundle, recording: Path) -> None:
    scored = [rerank.rerank(choice, made) for choice in rerank.choices(recording, made)]
    assert [one.choice.search.event_id for one in scored] == ["s0", "s2", "s6", "s40"]
    assert [one.choice.record for one in scored] == [0, 2, 6, 8]
    assert [one.seen for one in scored] == [False, True, False, False]
    assert [one.outcome for one in scored] == ["unknown-user", "ranked", "ranked", "ranked"]
    assert [one.choice.candidates[one.choice.chosen].listing_id for one in scored] == ["l2", "l2", "l3", "l3"]
    assert scored[1].orders == {"shown": [0, 1, 2], "seen-first": [1, 0, 2], "insession": [1, 0, 2]}


def test_only_clicks_and_bookings_of_the_same_user_from_the_results_are_choices(
    made: Bundle, tmp_path: Path
) -> None:
    events = [
        search(0, "a", "l1", "l2"),
        click(1, "a", "l2", "s0", Wishlist),
        click(2, "b", "l2", "s0"),
        click(3, "a", "l1", None),
        search(4, "a", "l1", "l2"),
        click(5, "a", "l9", "s4"),
        search(6, "a", "l1", "l2", search_id="named"),
        click(7, "a", "l2", "named", Booking),
    ]
    path = record(tmp_path / "r.jsonl.zst", events)
    assert [choice.search.event_id for choice in rerank.choices(path, made)] == ["s6"]


def test_a_list_that_was_reranked_is_handed_over_in_the_callers_order(made: Bundle, tmp_path: Path) -> None:
    results = (
        Shown(listing_id="l5", position=1, caller_position=3, caller_score=0.1, price=30),
        Shown(listing_id="l6", position=2, caller_position=1, caller_score=0.9, price=10),
        Shown(listing_id="l7", position=3, caller_position=2, caller_score=0.5, price=20),
    )
    first = Search(event_id="s0", user_id="a", timestamp=START, results=results)
    path = record(tmp_path / "r.jsonl.zst", [first, click(1, "a", "l5", "s0")])
    [one] = [rerank.rerank(choice, made) for choice in rerank.choices(path, made)]
    assert [candidate.listing_id for candidate in one.choice.candidates] == ["l6", "l7", "l5"]
    assert [candidate.score for candidate in one.choice.candidates] == [0.9, 0.5, 0.1]
    assert one.choice.chosen == 2
    assert one.orders["shown"] == [2, 0, 1]
    assert one.orders["insession"] == [0, 1, 2]


def test_nothing_that_came_later_changes_a_ranking(tmp_path: Path) -> None:
    market = Marketplace(3, markets=1, listings=200)
    events = list(market.events(60))
    trained = pipeline.train(record(tmp_path / "all.jsonl.zst", events), known=market.listings)
    whole = {
        choice.search.event_id: rerank.rerank(choice, trained).orders
        for choice in rerank.choices(tmp_path / "all.jsonl.zst", trained)
    }
    for cut in (len(events) // 3, len(events) // 2, len(events) - 5):
        path = record(tmp_path / "part.jsonl.zst", events[:cut])
        part = [rerank.rerank(choice, trained) for choice in rerank.choices(path, trained)]
        assert part
        assert all(one.orders == whole[one.choice.search.event_id] for one in part)


def test_a_record_that_can_not_be_read_is_passed_over(made: Bundle, recording: Path, tmp_path: Path) -> None:
    header, records = read(recording)
    path = tmp_path / "dirty.jsonl.zst"
    with Writer(path, header) as writer:
        for entry in records:
            writer.write(entry)
            writer.write(_spoiled(entry))
    clean = [rerank.rerank(choice, made).orders for choice in rerank.choices(recording, made)]
    assert [rerank.rerank(choice, made).orders for choice in rerank.choices(path, made)] == clean


def _spoiled(entry: Record) -> Record:
    return Record(entry.partition, None, entry.timestamp, entry.key, (), b"\xff" + (entry.value or b""))


def test_from_and_until_hold_out_by_time(made: Bundle, recording: Path) -> None:
    def n(*more: str) -> int:
        return int(json.loads(run(recording, "--json", *more).stdout)["n"])

    assert n("--from", str(START + 2 * MINUTE)) == 3
    assert n("--from", "2023-11-14T22:53:20") == 1  # START is 22:13:20
    assert n("--from", "2023-11-14T23:53:20+01:00") == 1
    assert n("--until", str(START + 6 * MINUTE)) == 2
    # What came before --from is still known: the target of s2 was seen before it.
    report = json.loads(run(recording, "--json", "--from", str(START + 2 * MINUTE)).stdout)
    assert report["results"][1]["n"] == 1


def test_nothing_to_score_is_a_user_error(made: Bundle, recording: Path) -> None:
    result = run(recording, "--from", "2030-01-01")
    assert isinstance(result.exception, UserError)
    assert "no search whose choice is known from 2030-01-01 00:00:00 UTC" in str(result.exception)


def test_the_table_shows_every_row_and_how_many_were_ranked(made: Bundle, recording: Path) -> None:
    result = run(recording)
    assert result.exit_code == 0
    rows = [line.split()[:3] for line in result.stdout.splitlines()[1:10]]
    assert rows[0] == ["shown", "all", "4"]
    assert rows[8] == ["insession", "unseen", "3"]
    assert "3 of 4 searches" in result.stdout
    assert result.stderr == ""


def test_a_bundle_trained_on_what_it_is_measured_on_is_said_aloud(tmp_path: Path) -> None:
    events = list(Marketplace(3, markets=1, listings=200).events(80))
    path = record(tmp_path / "r.jsonl.zst", events)
    middle = events[len(events) // 2].timestamp
    bundle.write(tmp_path / "bundles", pipeline.train(path, until=middle))
    result = run(path)
    assert "are from the time this bundle was trained on" in result.stderr
    assert "NOT HELD OUT" in result.stdout
    held_out = run(path, "--from", str(middle))
    assert held_out.stderr == ""
    assert "NOT HELD OUT" not in held_out.stdout
    assert "trained on" in run(path, "--json").stderr


def test_the_same_run_prints_the_same_bytes(made: Bundle, recording: Path) -> None:
    assert run(recording, "--json").stdout == run(recording, "--json").stdout


@pytest.mark.data
def test_on_rio_held_out_by_time_it_beats_both_baselines(tmp_path: Path) -> None:
    if "INSESSION_DATA" not in os.environ:
        pytest.skip("INSESSION_DATA is not set")
    folder = Path(os.environ["INSESSION_DATA"]) / "trivago_rio"
    entries = trivago.events([str(folder / "train.csv.gz")], Counter())
    records = importing.records(entries, 4, importing.Summary())
    path = tmp_path / "rio.jsonl.zst"
    with Writer(path, Header(topic="clicks", partitions=4)) as writer:
        for entry in importing.in_time_order(records, tmp_path):
            writer.write(entry)
    fourth = 1_541_289_600_000
    made = pipeline.train(path, until=fourth)
    scored = [rerank.rerank(choice, made) for choice in rerank.choices(path, made, since=fourth)]
    report = rerank.report(scored, np.random.default_rng(1))
    mrr = {(row["name"], row["targets"]): row["mrr"] for row in report["results"]}
    assert report["n"] == 1_448
    assert made.manifest.training.trained_until is not None
    assert fourth - DAY < made.manifest.training.trained_until < fourth
    assert mrr["shown", "all"] == pytest.approx(0.436, abs=0.001)
    assert mrr["seen-first", "all"] == pytest.approx(0.511, abs=0.001)
    assert mrr["insession", "all"] > 0.52
    assert mrr["insession", "unseen"] > mrr["seen-first", "unseen"]
