from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from insession.compared import named
from insession.evaluate import command
from insession.next_click import table
from models import bundle
from models.datasets.marketplace import Marketplace
from models.errors import UserError
from models.evaluation import next_click, tuning, visits
from models.evaluation.bundled import Bundled, sessions
from models.evaluation.methods import BASELINES
from models.evaluation.next_click import METRICS, Recommended
from models.evaluation.positions import Positions, positions
from models.evaluation.visits import Visits
from models.events import Click, Event
from models.sessions import WINDOWS
from models.training import from_files, pipeline
from tests.made import MINUTE, START, a_bundle, record, unit

CLOCK = itertools.count().__next__
"""A clock by which everything takes a second."""


def click(minute: int, user: str, listing: str) -> Click:
    return Click(
        event_id=f"{user}{minute:06d}", user_id=user, timestamp=START + minute * MINUTE, listing_id=listing
    )


def gathered(events: list[Event]) -> Visits:
    return visits.gather((event, None) for event in events)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["next-click", *arguments])


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return list(Marketplace(3, markets=1, listings=200).events(200))


@pytest.fixture(scope="module")
def files(events: list[Event], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("files")
    cut = len(events) * 3 // 4
    return (
        str(record(folder / "a.jsonl.zst", events[:cut])),
        str(record(folder / "b.jsonl.zst", events[cut:])),
    )


@pytest.fixture(scope="module")
def report(files: tuple[str, str]) -> dict[str, Any]:
    result = run("--train", files[0], "--test", files[1], "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_every_row_has_every_metric_with_its_interval(report: dict[str, Any]) -> None:
    assert {row["name"] for row in report["results"]} == {*BASELINES, "insession"}
    for row in report["results"]:
        for metric in (*METRICS, "popularity_bias@20"):
            low, high = row["ci"][metric]
            assert 0 <= low - 1e-9 <= row[metric] + 1e-9 <= high + 2e-9 <= 1 + 3e-9
        assert 0 < row["coverage@20"] <= 1
        assert row["seconds"] >= 0
        assert row["settings"]["repeats"] in ("all", "all-but-last", "none")
        assert row["hit_rate@5"] <= row["hit_rate@10"] <= row["hit_rate@20"]
    rates = [row["hit_rate@20"] for row in report["results"]]
    assert rates == sorted(rates, reverse=True)


def test_each_row_is_compared_with_the_best_other_baseline(report: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in report["results"]}
    for name, row in rows.items():
        for metric, versus in row["versus"].items():
            best = max(rows[other][metric] for other in BASELINES if other != name)
            assert rows[versus["baseline"]][metric] == best
            assert versus["difference"] == pytest.approx(row[metric] - best)
            assert versus["ci"][0] - 1e-9 <= versus["difference"] <= versus["ci"][1] + 1e-9
            assert 0 < versus["p"] <= 1
        assert row["versus"].keys() == set(METRICS)


def test_the_same_run_prints_the_same_but_for_seconds(files: tuple[str, str], report: dict[str, Any]) -> None:
    again = json.loads(run("--train", files[0], "--test", files[1], "--json").stdout)
    for one in (again, report):
        for row in one["results"]:
            row["seconds"] = row["tuning_seconds"] = 0.0
    assert again == report


def test_one_row_alone_is_the_row_among_all(files: tuple[str, str], report: dict[str, Any]) -> None:
    result = run("--train", files[0], "--test", files[1], "--json", "--only", "decayed-rules")
    [alone] = json.loads(result.stdout)["results"]
    [among] = [row for row in report["results"] if row["name"] == "decayed-rules"]
    assert alone["versus"] == {}
    assert alone["settings"] == among["settings"]
    assert all(alone[metric] == among[metric] for metric in METRICS)


def test_the_metrics_of_a_small_case_are_what_a_hand_computes() -> None:
    train = gathered([click(0, "a", "x"), click(1, "a", "x"), click(2, "a", "y"), click(3, "a", "z")])
    test = gathered(
        [
            click(9, "b", "x"),
            click(10, "b", "z"),
            click(11, "b", "y"),
            click(9, "c", "y"),
            click(10, "c", "x"),
        ]
    )
    asked = positions(test, train)
    assert train.listings == ["x", "y", "z"]
    assert [train.listings[target] for target in asked.targets] == ["z", "y", "x"]
    row = Recommended("made", np.array([[2, 1], [0, 1], [1, 2]]), {}, 1.0, 0.0, True)
    [result] = next_click.report([row], train, asked, 1)["results"]
    assert result["hit_rate@20"] == pytest.approx(2 / 3)
    assert result["mrr@20"] == pytest.approx((1 + 1 / 2) / 3)
    assert result["ndcg@20"] == pytest.approx((1 + 1 / np.log2(3)) / 3)
    assert result["coverage@20"] == 1.0
    assert result["popularity_bias@20"] == pytest.approx((0.5 + 0.75 + 0.5) / 3)


def test_nothing_of_the_test_changes_what_is_learned(events: list[Event]) -> None:
    cut = len(events) * 3 // 4
    train, whole = gathered(events[:cut]), gathered(events[cut:])
    part = whole.chosen(np.arange(len(whole) // 2))
    validation = tuning.part(train, np.random.default_rng(1))
    for name in BASELINES:
        all_asked, some_asked = positions(whole, train), positions(part, train)
        every = next_click.baseline(name, train, all_asked, validation, CLOCK)
        some = next_click.baseline(name, train, some_asked, validation, CLOCK)
        assert some.settings == every.settings
        assert (some.seconds, some.tuning_seconds) == (1, 1)
        assert (every.lists[: len(some.lists)] == some.lists).all()


def test_a_bundle_repeats_as_decayed_rules_do_which_saw_nothing_of_what_it_is_chosen_on(
    report: dict[str, Any], events: list[Event]
) -> None:
    settings = {row["name"]: row["settings"] for row in report["results"]}
    assert settings["insession"]["repeats"] == settings["decayed-rules"]["repeats"]
    validation = tuning.part(gathered(events), np.random.default_rng(1))
    rows = [
        next_click.baseline(
            "decayed-rules",
            gathered(events),
            positions(gathered(events), gathered(events)),
            validation,
            CLOCK,
        )
    ]
    assert next_click.repeats(rows, None) == next_click.repeats([], validation) == rows[0].settings["repeats"]
    assert next_click.repeats([], None) == "all"


def test_nothing_that_is_clicked_later_changes_a_recommendation(events: list[Event]) -> None:
    cut = len(events) * 3 // 4
    train, whole = gathered(events[:cut]), gathered(events[cut:])
    asked = positions(whole, train)
    moment = int(np.median(whole.times))
    earlier = positions(whole.before(moment), train)
    same = whole.times[asked.clicks] < moment
    assert 0 < same.sum() < len(asked)
    for name in BASELINES:
        every = next_click.baseline(name, train, asked, None, CLOCK).lists
        assert (every[same] == next_click.baseline(name, train, earlier, None, CLOCK).lists).all()


def test_a_bundle_scores_by_the_visits_embedding() -> None:
    made = a_bundle(vectors=unit(5, 4))
    train = gathered([click(at, "t", f"l{at % 4}") for at in range(8)] + [click(99, "t", "unknown")])
    test = gathered([click(0, "u", "l1"), click(1, "u", "nobody"), click(2, "u", "l2"), click(3, "u", "l0")])
    asked = positions(test, train)
    scores = Bundled(made, train.listings)(asked)
    assert len(asked) == 2
    for row, session in enumerate(sessions(asked)):
        vector = made.encode(session)
        assert vector is not None
        for code, listing in enumerate(train.listings):
            if listing == "unknown":
                assert scores[row, code] == -np.inf
            else:
                wanted = made.vectors[made.row[listing]] @ np.array(vector, np.float32)
                assert scores[row, code] == pytest.approx(wanted, abs=1e-6)


def test_a_bundle_is_asked_with_the_session_a_state_would_hold() -> None:
    clicks = [click(at, "u", f"l{at % 7}") for at in range(WINDOWS.events + 5)]
    train, test = gathered(list(clicks)), gathered(list(clicks))
    found = sessions(positions(test, train))
    assert [event.timestamp for event in found[2].events] == [START, START + MINUTE, START + 2 * MINUTE]
    assert len(found[-1].events) == WINDOWS.events
    assert found[-1].first == START
    assert found[-1].last == clicks[-2].timestamp


def test_a_bundle_has_a_row_named_by_its_folder_and_is_told_of_when_it_has_seen_the_test(
    files: tuple[str, str], tmp_path: Path
) -> None:
    for name, source in (("earlier", files[0]), ("peeked", files[1])):
        bundle.write(tmp_path / name, pipeline.train(source, learn_ranker=False))
    result = run(
        "--train", files[0], "--test", files[1], "--json", "--only", "insession", "--only", "earlier",
        "--only", "peeked", "--bundle", str(tmp_path / "earlier"), "--bundle", str(tmp_path / "peeked"),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    rows = {row["name"]: row for row in found["results"]}
    assert rows.keys() == {"insession", "earlier", "peeked"}
    assert all(rows["insession"][metric] == rows["earlier"][metric] for metric in METRICS)
    assert [warning for warning in found["warnings"] if warning.startswith("peeked: ")]
    assert "test visits are from the time this bundle was trained on" in result.stderr


def test_a_test_that_begins_before_the_training_ends_is_said_aloud(files: tuple[str, str]) -> None:
    overlapping = run("--train", files[0], "--test", files[0], "--only", "popularity")
    assert "test visits begin before the training ends" in overlapping.stderr


def test_one_file_is_split_by_time(events: list[Event], tmp_path: Path) -> None:
    path = str(record(tmp_path / "all.jsonl.zst", events))
    at = events[len(events) // 2].timestamp
    result = run("--train", path, "--test", path, "--split", str(at), "--only", "popularity", "--json")
    found = json.loads(result.stdout)
    assert found["train"]["last"] < at <= found["test"]["first"]
    assert found["warnings"] == []
    assert result.stderr == ""
    limited = run(
        "--train", path, "--test", path, "--split", str(at), "--only", "popularity", "--json", "--limit", "7"
    )
    assert json.loads(limited.stdout)["test"]["visits"] == 7


def test_a_bundle_of_other_files_is_that_of_the_recording_they_become(
    events: list[Event], tmp_path: Path
) -> None:
    clicks = [event for event in events if isinstance(event, Click)]
    times: dict[str, list[int]] = {}
    for event in clicks:
        times.setdefault(event.user_id, []).append(event.timestamp)
    # Of users of one visit, for a set's own sessions stay as they are.
    once = {user for user, of in times.items() if max(of) - min(of) <= WINDOWS.gap}
    clicks = [event for event in clicks if event.user_id in once]
    lines = [f"{event.user_id}\t{event.listing_id}\t{event.timestamp / 1000:.3f}" for event in clicks]
    (tmp_path / "clicks.txt").write_text("\n".join(["SessionId\tItemId\tTime", *lines, ""]))
    path = record(tmp_path / "clicks.jsonl.zst", list(clicks), partitions=1)
    one = from_files.train([str(tmp_path / "clicks.txt")])
    other = from_files.train([str(path)])
    assert one.listings.ids == other.listings.ids
    assert (one.vectors == other.vectors).all()


def test_the_table_has_every_row_and_says_the_sizes(report: dict[str, Any]) -> None:
    text = table(report)
    lines = text.splitlines()
    rows = len(report["results"])
    assert [line.split()[0] for line in lines[1 : rows + 1]] == [row["name"] for row in report["results"]]
    [cold] = [row["cold"] for row in report["results"] if not row["baseline"]]
    assert cold["n"] <= cold["clicks"] > 0
    assert (
        f"{cold['n']:,} of {cold['clicks']:,} clicks on listings without a click in the training" in lines[-2]
    )
    assert f"n = {report['n']:,} targets" in text
    assert "seed 1" in text


def test_what_can_not_be_measured_is_a_user_error(files: tuple[str, str], tmp_path: Path) -> None:
    def refused(*arguments: str) -> str:
        result = run(*arguments)
        assert isinstance(result.exception, UserError), result.output
        return str(result.exception)

    other = str(record(tmp_path / "other.jsonl.zst", [click(0, "u", "x"), click(1, "u", "y")]))
    single = str(record(tmp_path / "single.jsonl.zst", [click(0, "u", "x")]))
    empty = str(record(tmp_path / "empty.jsonl.zst", []))
    assert "no visit clicks a listing of the training" in refused("--train", files[0], "--test", other)
    assert "no visit of two clicks or more" in refused("--train", files[0], "--test", single)
    assert "--test: " in refused("--train", files[0], "--test", empty)
    assert "no clicks in it before" in refused("--train", files[0], "--test", other, "--split", "2001-01-01")
    assert f"--train {files[0]} is given twice" in refused(*("--train", files[0]) * 2, "--test", other)
    assert "absent" in refused("--train", str(tmp_path / "absent"), "--test", other)
    wrong = run("--train", files[0], "--test", files[1], "--only", "magic")
    assert wrong.exit_code == 2
    assert "the rows are popularity, " in wrong.output


def test_a_bundle_in_a_folder_that_is_named_as_a_row_has_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert named([Path("insession")], ["insession"]) == {str(tmp_path / "insession"): Path("insession")}
    assert named([Path("a/x"), Path("b/x")]) == {"x": Path("a/x"), "b/x": Path("b/x")}


def test_a_bundle_that_is_not_there_is_told_before_anything_is_measured(files: tuple[str, str]) -> None:
    result = run("--train", "nowhere", "--test", files[1], "--bundle", "absent")
    assert "absent" in str(result.exception)


def test_where_no_bundle_can_be_learned_the_baselines_stand_all_the_same(tmp_path: Path) -> None:
    alone = [click(minute, f"u{user}", f"l{user}") for user in range(9) for minute in range(3)]
    path = str(record(tmp_path / "alone.jsonl.zst", alone))
    result = run("--train", path, "--test", path, "--json")
    made = json.loads(result.stdout)
    assert {row["name"] for row in made["results"]} == {*BASELINES}
    assert any("no session acts on two different listings" in warning for warning in made["warnings"])


def test_every_mean_is_within_its_interval(report: dict[str, Any]) -> None:
    for row in report["results"]:
        assert all(low <= row[name] <= high for name, (low, high) in row["ci"].items())


def test_too_few_to_ask_is_no_validation_but_a_table(tmp_path: Path) -> None:
    path = str(record(tmp_path / "few.jsonl.zst", [click(0, "u", "x"), click(1, "u", "y")]))
    result = run("--train", path, "--test", path, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["n"], found["validation"]) == (1, 0)
    assert all(row["settings"]["repeats"] == "all" for row in found["results"])


def test_positions_may_be_taken_in_slices() -> None:
    train = gathered([click(at, "t", f"l{at % 4}") for at in range(8)])
    asked = positions(train, train)
    assert isinstance(asked[2:5], Positions)
    assert asked[2:5].targets.tolist() == asked.targets.tolist()[2:5]
