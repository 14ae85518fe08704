from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from insession.train import command
from models import bundle
from models.bundle import Bundle, Floats
from models.datasets.marketplace import Marketplace
from models.errors import UserError
from models.events import Booking, Click, Event, Forget, Rejection, Result, Search
from models.listings import Listing
from models.training import pipeline
from models.training.corpus import steps
from models.training.gathering import Gathering, gather
from models.training.skip_gram import SkipGram
from tests.made import MINUTE, START, record

QUICK = SkipGram(dimensions=8, epochs=2)
SIMULATED = Marketplace(1, markets=2, listings=200)
EVENTS = list(SIMULATED.events(500))
SEARCHES = [event.timestamp for event in EVENTS if isinstance(event, Search)]
SPLIT = SEARCHES[int(pipeline.EARLIER * len(SEARCHES))]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("train") / "sim.jsonl.zst", EVENTS)


@pytest.fixture(scope="module")
def trained(recording: Path) -> Bundle:
    return pipeline.train(recording, known=SIMULATED.listings, method="skip-gram", settings=QUICK)


def vectors(made: Bundle) -> dict[str, tuple[float, ...]]:
    return {
        name: tuple(vector)
        for name, vector in zip(made.listings.ids, made.vectors.tolist(), strict=True)
        if any(vector)
    }


def sessions(path: Path) -> list[list[str]]:
    """The steps of a recording's sessions, by listing."""
    corpus = steps(gather(path).corpus)
    names = [corpus.listings.ids[row] for row in corpus.tokens.tolist()]
    return [names[first:last] for first, last in pairwise(corpus.starts.tolist())]


def clicks(*visits: Iterable[str]) -> Iterator[Event]:
    """A visit a user, with a click a minute."""
    for user, names in enumerate(visits):
        for at, name in enumerate(names):
            yield Click(
                event_id=f"{user}-{at}", user_id=f"u{user}", timestamp=START + at * MINUTE, listing_id=name
            )


def test_a_bundle_is_learned_from_sessions_and_searches(trained: Bundle) -> None:
    facts = trained.manifest.training
    assert facts.ranker == "learned"
    assert facts.embeddings_until == SPLIT
    assert facts.trained_until == EVENTS[-1].timestamp
    assert len(trained.listings) == 200
    assert 50 < facts.metrics["listings_with_vector"] == trained.vectors.any(axis=1).sum()
    assert trained.vectors.shape == (200, 8)


def test_the_vectors_are_not_fitted_to_what_the_ranker_learns_similarity_on(
    trained: Bundle, tmp_path: Path
) -> None:
    """What is later than the split is turned upside down: the vectors stay, the ranker does not."""
    names = [listing.listing_id for listing in SIMULATED.listings]
    mirror = dict(zip(names, reversed(names), strict=True))
    changed: list[Event] = []
    for event in EVENTS:
        if event.timestamp < SPLIT:
            changed.append(event)
        elif isinstance(event, Search):
            results = tuple(
                msgspec.structs.replace(r, listing_id=mirror[r.listing_id]) for r in event.results
            )
            changed.append(msgspec.structs.replace(event, results=results[::-1]))
        elif isinstance(event, Click):
            changed.append(msgspec.structs.replace(event, listing_id=mirror[event.listing_id]))
        elif not isinstance(event, Rejection):
            changed.append(event)
    path = record(tmp_path / "changed.jsonl.zst", changed)
    other = pipeline.train(path, known=SIMULATED.listings, method="skip-gram", settings=QUICK)
    assert vectors(other) == vectors(trained)
    assert other.ranker.weights.tolist() != trained.ranker.weights.tolist()


def test_one_seed_gives_the_same_bytes_in_another_process_and_another_seed_others(
    recording: Path, tmp_path: Path
) -> None:
    def arguments(out: str, seed: int) -> list[str]:
        return [
            str(recording), "--out", str(tmp_path / out), "--seed", str(seed), "--epochs", "1", "--dimensions", "8",
        ]  # fmt: skip

    for out, seed in (("one", 7), ("other", 8)):
        CliRunner().invoke(command, arguments(out, seed), catch_exceptions=False)
    subprocess.run(
        [sys.executable, "-m", "insession.main", "train", *arguments("two", 7)],
        check=True,
        capture_output=True,
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"PYTHONHASHSEED": "12345"},
    )
    one, two, other = (
        {path.name: path.read_bytes() for path in (tmp_path / out / "current").iterdir()}
        for out in ("one", "two", "other")
    )
    assert one == two
    assert one["vectors.safetensors"] != other["vectors.safetensors"]
    assert os.readlink(tmp_path / "one" / "current") == os.readlink(tmp_path / "two" / "current")
    assert not any(str(tmp_path).encode() in content for content in one.values())


def test_until_leaves_out_what_is_later(recording: Path) -> None:
    made = pipeline.train(recording, until=SPLIT, method="skip-gram", settings=QUICK)
    assert made.manifest.training.trained_until == max(e.timestamp for e in EVENTS if e.timestamp < SPLIT)
    earlier = [event for event in EVENTS if event.timestamp < SPLIT]
    assert made.manifest.training.metrics["events"] == len(earlier)


def test_without_searches_the_ranker_is_the_default_and_the_vectors_are_fitted_to_everything(
    tmp_path: Path,
) -> None:
    path = record(tmp_path / "r.jsonl.zst", clicks(*[("a", "b", "c"), ("b", "c", "d")] * 10))
    result = CliRunner().invoke(
        command, [str(path), "--out", str(tmp_path / "bundles"), "--dimensions", "4", "--json"]
    )
    report = msgspec.json.decode(result.stdout)
    assert report["ranker"] == "default"
    assert report["searches"] == 0
    assert report["listings_with_vector"] == report["listings"] == 4
    assert report["index"]["queries"] == 0
    made = bundle.load(tmp_path / "bundles")
    assert made.name == report["bundle"]
    assert made.manifest.training.ranker == "default"
    assert made.manifest.training.embeddings_until == made.manifest.training.trained_until + 1  # type: ignore[operator]
    result = CliRunner().invoke(command, [str(path), "--out", str(tmp_path / "bundles"), "--epochs", "1"])
    assert "the default: fewer than 50 searches" in result.stdout
    assert "so few listings are compared one by one" in result.stdout


def test_without_a_ranker_to_learn_the_vectors_are_fitted_to_everything(
    recording: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(
        command, [str(recording), "--out", str(tmp_path / "bundles"), "--no-ranker", "--epochs", "1"]
    )
    assert "the default: --no-ranker" in result.stdout
    facts = bundle.load(tmp_path / "bundles").manifest.training
    assert facts.ranker == "default"
    assert facts.embeddings_until == facts.trained_until + 1  # type: ignore[operator]
    assert (
        facts.embeddings_until
        > pipeline.train(recording, method="skip-gram", settings=QUICK).manifest.training.embeddings_until
    )  # type: ignore[operator]


def test_a_listing_that_is_near_no_other_has_no_vector(tmp_path: Path) -> None:
    shown = Search(
        event_id="s",
        user_id="u9",
        timestamp=START,
        market="Rio",
        results=(Result(listing_id="shown", position=1, price=9.5),),
    )
    path = record(tmp_path / "r.jsonl.zst", [shown, *clicks(("a", "b"), ("alone", "alone", "alone"))])
    made = pipeline.train(path, known=[Listing(listing_id="listed")], method="skip-gram", settings=QUICK)
    assert made.listings.ids == ["a", "alone", "b", "listed", "shown"]
    assert made.vectors.any(axis=1).tolist() == [True, False, True, False, False]
    assert made.listings.get(4) == Listing(listing_id="shown", market="Rio", price=9.5)


def test_what_a_listings_own_record_says_comes_before_the_events() -> None:
    gathering = Gathering()
    for at, (name, market, price) in enumerate((("a", "Rio", 1.0), ("b", "Rio", 9.0), ("b", "Lisbon", 2.0))):
        results = (Result(listing_id=name, position=1, price=price),)
        gathering.add(
            Search(event_id=f"{at}", user_id="u", timestamp=START + at, market=market, results=results)
        )
    made = gathering.catalogue([Listing(listing_id="a", market="Lisbon", price=7.0)])
    assert [made.get(row) for row in range(2)] == [
        Listing(listing_id="a", market="Lisbon", price=7.0),
        Listing(listing_id="b", market="Lisbon", price=2.0),
    ]


def test_sessions_are_split_at_the_gap_and_repeats_stand_once(tmp_path: Path) -> None:
    rows = [
        ("u", 0, "a"),
        ("u", 1, "a"),
        ("u", 2, "b"),
        ("v", 2, "z"),
        ("u", 32, "c"),
        ("u", 63, "d"),
        ("v", 3, "a"),
    ]
    events = [
        Click(event_id=str(n), user_id=user, timestamp=START + minute * MINUTE, listing_id=name)
        for n, (user, minute, name) in enumerate(rows)
    ]
    assert sessions(record(tmp_path / "r.jsonl", events)) == [["z", "a"], ["a", "b", "c"]]


def test_what_a_user_asked_to_forget_is_not_learned_from(tmp_path: Path) -> None:
    events = [*clicks(("a", "b"), ("secret", "hidden"))]
    forget = Forget(event_id="f", user_id="u1", timestamp=START + 10 * MINUTE)
    path = record(tmp_path / "r.jsonl.zst", [*events, forget])
    made = pipeline.train(path, method="skip-gram", settings=QUICK)
    assert set(vectors(made)) == {"a", "b"}


def test_codes_do_not_depend_on_what_stands_first_in_the_file(tmp_path: Path) -> None:
    events = list(clicks(("b", "a"), ("c", "b")))
    one = gather(record(tmp_path / "1.jsonl", events)).corpus
    two = gather(record(tmp_path / "2.jsonl", events[::-1])).corpus
    assert one.tokens.tolist() == two.tokens.tolist()
    assert one.listings.ids == two.listings.ids == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "no clicks"),
        (list(clicks(("a",), ("b",))), "no session acts on two different listings"),
    ],
)
def test_nothing_to_learn_from_is_a_user_error(tmp_path: Path, events: list[Event], message: str) -> None:
    path = record(tmp_path / "r.jsonl.zst", events)
    with pytest.raises(UserError, match=message):
        pipeline.train(path, method="skip-gram", settings=QUICK)


def test_where_a_setting_leaves_nothing_it_is_named(recording: Path) -> None:
    with pytest.raises(UserError, match="no session of what fewest_clicks = 500 leaves acts on two"):
        pipeline.train(recording, method="skip-gram", settings=SkipGram(fewest_clicks=500), validation=0.2)


def test_an_until_before_everything_says_so(recording: Path) -> None:
    with pytest.raises(UserError, match="before the time given with --until"):
        pipeline.train(recording, until=5, method="skip-gram", settings=QUICK)


def test_a_wrong_time_is_a_usage_error(recording: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        command, [str(recording), "--out", str(tmp_path / "b"), "--until", "yesterday"]
    )
    assert result.exit_code == 2
    assert "`yesterday` is neither an ISO date" in result.stderr


def test_bookings_are_learned_from_as_clicks_are(tmp_path: Path) -> None:
    events = [
        event
        if event.listing_id == "a"
        else Booking(
            **{name: getattr(event, name) for name in ("event_id", "user_id", "timestamp", "listing_id")}
        )
        for event in clicks(("a", "b"))
        if isinstance(event, Click)
    ]
    assert set(
        vectors(pipeline.train(record(tmp_path / "r.jsonl", events), method="skip-gram", settings=QUICK))
    ) == {"a", "b"}


def test_similar_places_have_similar_vectors(recording: Path) -> None:
    """The simulated truth is found again: near listings are of one market."""
    made = pipeline.train(
        recording, known=SIMULATED.listings, method="skip-gram", settings=SkipGram(dimensions=16)
    )
    rows = np.flatnonzero(made.vectors.any(axis=1))
    matrix: Floats = made.vectors[rows] @ made.vectors[rows].T
    np.fill_diagonal(matrix, -1)
    market = made.listings.market_codes[rows]
    assert (market[matrix.argmax(axis=1)] == market).mean() > 0.95


def test_where_no_bundle_can_be_written_nothing_is_learned_and_nothing_left(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for out in ("file", "file/below", "link"):
        result = CliRunner().invoke(command, ["absent.zst", "--out", str(tmp_path / out)])
        assert isinstance(result.exception, UserError)
        assert str(result.exception).startswith(f"the bundle can't be written to {tmp_path / out}: ")
    result = CliRunner().invoke(command, ["absent.zst", "--out", str(tmp_path / "new" / "bundles")])
    assert "absent.zst" in str(result.exception)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "link"}


def test_a_folder_that_can_not_be_written_to_is_refused_before_anything_is_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, mode: int = 0o777) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "mkdir", refuse)
    result = CliRunner().invoke(command, ["absent.zst", "--out", str(tmp_path)])
    assert str(result.exception) == f"the bundle can't be written to {tmp_path}: Permission denied"
