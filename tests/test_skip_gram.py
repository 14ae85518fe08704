from __future__ import annotations

import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from insession import contracts
from models import listings
from models.errors import UserError
from models.listings import Listing
from models.training import _skip_gram, losses, noise, pairs, skip_gram
from models.training.corpus import BOOKING, Corpus
from models.training.losses import LOSSES
from models.training.run import Run
from models.training.skip_gram import SkipGram
from tests.made import a_corpus

COMPILED = SkipGram(dimensions=8, epochs=8, subsampling=0, block=64)
BY_AUTOGRAD = replace(COMPILED, regulariser="l2", regularisation=0.0)
both = pytest.mark.parametrize("settings", [COMPILED, BY_AUTOGRAD], ids=["compiled", "autograd"])


def planted(groups: int = 3, each: int = 6, sessions: int = 300, seed: int = 0) -> Corpus:
    """Sessions that stay within one group of listings: listing i is of group i % groups."""
    random = np.random.default_rng(seed)
    return a_corpus(random.permutation(each)[:4] * groups + random.integers(groups) for _ in range(sessions))


def trained(corpus: Corpus, settings: SkipGram, seed: int = 1) -> npt.NDArray[np.float32]:
    torch.set_num_threads(1)
    return skip_gram.train(corpus, settings, Run(np.random.default_rng(seed)))


def booking(corpus: Corpus, steps: npt.NDArray[np.bool_]) -> Corpus:
    """The corpus with these steps bookings."""
    return replace(corpus, kinds=np.where(steps, BOOKING, 0).astype(np.uint8))


def in_markets(names: list[str | None]) -> list[Listing]:
    return [Listing(listing_id=f"l{row}", market=name) for row, name in enumerate(names)]


def finds_its_groups(vectors: npt.NDArray[np.float32], groups: int = 3) -> bool:
    similarity = vectors @ vectors.T
    group = np.arange(len(vectors)) % groups
    itself = np.eye(len(vectors), dtype=bool)
    same = (group[:, None] == group) & ~itself
    apart = similarity[same].mean() > similarity[~same & ~itself].mean() + 0.3
    np.fill_diagonal(similarity, -1)
    return bool(apart and (group[similarity.argmax(axis=1)] == group).all())


@both
def test_it_finds_planted_groups(settings: SkipGram) -> None:
    assert finds_its_groups(trained(planted(), settings))


@pytest.mark.parametrize("dimensions", [3, 16, 32, 64, 128])
def test_it_finds_them_in_any_number_of_dimensions(dimensions: int) -> None:
    vectors = trained(planted(), replace(COMPILED, dimensions=dimensions))
    assert vectors.shape == (18, dimensions)
    assert finds_its_groups(vectors)


def test_it_finds_them_with_several_threads() -> None:
    assert finds_its_groups(skip_gram.train(planted(), COMPILED, Run(np.random.default_rng(1), threads=3)))


@both
def test_vectors_have_length_one_and_listings_never_acted_on_have_none(settings: SkipGram) -> None:
    corpus = replace(planted(), listings=listings.collect(in_markets([None] * 20)))
    vectors = trained(corpus, settings)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1] * 18 + [0] * 2, atol=1e-5)


@both
def test_one_seed_gives_the_same_bits_and_another_seed_others(settings: SkipGram) -> None:
    one, two, other = (trained(planted(), settings, seed) for seed in (1, 1, 2))
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != other.tobytes()


@both
def test_the_loss_falls(settings: SkipGram) -> None:
    run = Run(np.random.default_rng(1))
    skip_gram.train(planted(), settings, run)
    losses = [epoch.loss for epoch in run.curve]
    assert len(losses) == settings.epochs
    assert losses[0] < 6 * np.log(2) * 1.1  # a pair and its five negatives, of which nothing is known
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("dimensions", [4, 8, 13, 32])
def test_a_compiled_step_is_autograds(dimensions: int) -> None:
    random = np.random.default_rng(dimensions)
    tables = skip_gram.Tables(
        *(torch.from_numpy(random.normal(0, 0.5, (9, dimensions)).astype(np.float32)) for _ in range(2)),
        *(torch.from_numpy(random.random(9).astype(np.float32)) for _ in range(2)),
    )
    expected = [tensor.clone() for tensor in (tables.centres, tables.contexts, *_sums(tables))]
    centre, others = torch.tensor([4]), torch.tensor([[7, 0, 4, 8]])
    vectors = expected[0][centre].requires_grad_()
    rows = expected[1][others].requires_grad_()
    scores = (rows @ vectors[:, :, None]).squeeze(2)
    loss = LOSSES["log-sigmoid"](scores[:, 0], scores[:, 1:]).sum()
    moves = torch.autograd.grad(loss, (vectors, rows))
    skip_gram.descend(expected[0], expected[2], centre, moves[0], 0.3)
    skip_gram.descend(expected[1], expected[3], others[0], moves[1][0], 0.3)

    arrays = [tensor.numpy() for tensor in (tables.centres, tables.contexts, *_sums(tables))]
    found = _skip_gram.step(_skip_gram.Tables(*arrays), 4, np.array([7, 0, 4, 8], np.int32), 0.3)
    assert found == pytest.approx(loss.item(), rel=1e-5)
    for array, tensor in zip(arrays, expected, strict=True):
        np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-5, atol=1e-6)


def test_a_score_beyond_all_bounds_costs_much_and_is_finite() -> None:
    arrays = [np.full((3, 4), size, np.float32) for size in (50, 50)] + [
        np.ones(3, np.float32) for _ in range(2)
    ]
    loss = _skip_gram.step(_skip_gram.Tables(*arrays), 0, np.array([1, 2], np.int32), 0.3)
    assert 79 < loss < 81
    assert all(np.isfinite(array).all() for array in arrays)


def test_compiled_code_takes_no_copy_for_a_table() -> None:
    table, sums = np.zeros((3, 4)), np.ones(3, np.float32)
    with pytest.raises(TypeError):
        _skip_gram.Tables(table, table, sums, sums)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "expected"), [({}, 24), ({"window": 1}, 12), ({"booked_context": True}, 24 + 3)]
)
@both
def test_both_go_through_the_pairs_of_the_window_and_of_the_booked_listing(
    settings: SkipGram, change: dict[str, int], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sessions of four: twelve pairs each at a reach of three, six at one; and one booked at its end."""
    many = 0.0

    def count(run: Run, loss: float, weight: float, done: int, total: int) -> None:
        nonlocal many
        many += weight

    monkeypatch.setattr(Run, "step", count)
    corpus = booking(a_corpus([[0, 1, 2, 3], [4, 5, 6, 7]]), np.arange(8) == 7)
    settings = replace(settings, **({"window": 60, "booked_context": False, "epochs": 200} | change))
    trained(corpus, settings)
    assert many / 200 == pytest.approx(expected, rel=0.05)  # a reach of one or two is drawn now and then


@both
def test_a_booked_listing_is_near_to_clicks_beyond_the_window(settings: SkipGram) -> None:
    """Listings g and 4 + g begin sessions that book listing 8 + g, after six clicks of anything."""
    random = np.random.default_rng(0)
    firsts = random.integers(0, 8, 400).tolist()
    sessions = [[first, *random.integers(12, 24, 6).tolist(), 8 + first % 4] for first in firsts]
    corpus = booking(a_corpus(sessions), np.tile(np.arange(8) == 7, 400))
    settings = replace(settings, window=2, epochs=15)

    def finds(context: bool) -> bool:
        vectors = trained(corpus, replace(settings, booked_context=context))
        similarity = vectors[:4] @ vectors[4:8].T
        return bool((similarity.argmax(axis=1) == np.arange(4)).all() and np.diag(similarity).mean() > 0.5)

    assert finds(True)
    assert not finds(False)


@both
def test_negatives_of_the_market_push_its_listings_apart(settings: SkipGram) -> None:
    """Ten markets of two styles each; a visitor stays in a market and, most of the time, with a style."""
    random = np.random.default_rng(0)
    sessions = []
    for _ in range(1_500):
        market, style = random.integers(10), random.integers(2)
        styles = np.where(random.random(4) < 0.2, 1 - style, style)
        sessions.append((market * 8 + styles * 4 + random.integers(0, 4, 4)).tolist())
    market, style = np.arange(80) // 8, np.arange(80) // 4
    other_style = (market[:, None] == market) & (style[:, None] != style)

    def likeness(many: int, names: list[str | None]) -> float:
        corpus = a_corpus(sessions, in_markets(names))
        vectors = trained(corpus, replace(settings, market_negatives=many))
        return float((vectors @ vectors.T)[other_style].mean())

    known = [f"m{code}" for code in market.tolist()]
    apart = likeness(5, known)
    assert apart < likeness(0, known) - 0.1
    assert apart < likeness(5, ["everywhere"] * 80) - 0.1  # more negatives alone don't do it


@both
def test_a_click_that_is_dropped_changes_nothing(settings: SkipGram) -> None:
    random = np.random.default_rng(0)
    sessions = planted(sessions=40).tokens.reshape(-1, 4).tolist()
    at, listing = random.integers(0, 5, 40).tolist(), random.integers(0, 18, 40).tolist()
    more = [[*each[:k], short, *each[k:]] for each, k, short in zip(sessions, at, listing, strict=True)]
    stayed = np.where(np.arange(5) == np.array(at)[:, None], 29, 30).ravel().astype(np.float32)
    known = in_markets([None] * 18)
    settings = replace(settings, shortest_click=30)
    plain = trained(a_corpus(sessions, known, seconds=30), settings)
    with_short = replace(a_corpus(more, known), seconds=stayed)
    assert trained(with_short, settings).tobytes() == plain.tobytes()
    assert trained(with_short, replace(settings, shortest_click=29)).tobytes() != plain.tobytes()
    unknown = replace(with_short, seconds=np.where(stayed < 30, np.nan, stayed))
    assert trained(unknown, settings).tobytes() != plain.tobytes()


@both
def test_a_session_of_one_click_changes_nothing_unless_it_is_to_count(settings: SkipGram) -> None:
    sessions = planted(sessions=40).tokens.reshape(-1, 4).tolist()
    known = in_markets([None] * 19)
    plain = trained(a_corpus(sessions, known), settings)
    more = a_corpus([*sessions, [3], [18]], known)
    assert trained(more, settings).tobytes() == plain.tobytes()
    counted = trained(more, replace(settings, fewest_clicks=1))
    assert counted.tobytes() != plain.tobytes()
    assert not counted[18].any()  # it can be a negative, and has no vector all the same


@both
def test_booked_sessions_weigh_more_where_they_are_oversampled(settings: SkipGram) -> None:
    """Listing 0 is seen with group 1 in sessions that book, and three times as often with group 2 in others."""
    random = np.random.default_rng(0)
    sessions = [[0, *random.choice(np.arange(1, 7), 3, replace=False).tolist()] for _ in range(40)]
    sessions += [[0, *random.choice(np.arange(7, 13), 3, replace=False).tolist()] for _ in range(120)]
    sessions += [random.choice(np.arange(13, 25), 4, replace=False).tolist() for _ in range(300)]
    booked = np.zeros(4 * len(sessions), np.bool_)
    booked[3:160:4] = True
    corpus = booking(a_corpus(sessions), booked)
    settings = replace(settings, booked_context=False)

    def leaning(times: int) -> float:
        similarity = trained(corpus, replace(settings, booked_times=times))
        return float((similarity[1:7] @ similarity[0]).mean() - (similarity[7:13] @ similarity[0]).mean())

    assert leaning(10) > leaning(1)


@both
def test_subsampling_drops_clicks_on_frequent_listings(settings: SkipGram) -> None:
    """Listing 0 stands between any two listings of a group, and keeps them from each other at a window of one."""
    random = np.random.default_rng(0)
    groups = [1 + 4 * group + random.permutation(4)[:2] for group in random.integers(0, 5, 600).tolist()]
    corpus = a_corpus([first, 0, second] for first, second in groups)
    settings = replace(settings, window=1, epochs=30)
    group = np.arange(20) // 4

    def likeness(threshold: float) -> float:
        vectors = trained(corpus, replace(settings, subsampling=threshold))[1:]
        similarity = vectors @ vectors.T
        return float(similarity[group[:, None] == group].mean() - similarity[group[:, None] != group].mean())

    assert likeness(0.001) > likeness(0.0) + 0.15


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_finds_planted_groups(loss: str) -> None:
    assert finds_its_groups(trained(planted(), replace(BY_AUTOGRAD, loss=loss)))


def test_a_new_loss_is_the_one_line_that_the_docs_show(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (contracts.DOCS / "methods.md").read_text(encoding="utf-8")
    [line] = re.findall(r'^"margin": .*$', page, flags=re.MULTILINE)
    for name, loss in eval(f"{{{line}}}", vars(losses)).items():
        monkeypatch.setitem(LOSSES, name, loss)
    assert finds_its_groups(trained(planted(), replace(COMPILED, loss="margin")))


def test_a_regulariser_keeps_vectors_small() -> None:
    def size(settings: SkipGram) -> float:
        run, corpus = Run(np.random.default_rng(1)), planted()
        tables = skip_gram.Tables.begun(18, 8, run)
        drawn = noise.noise(corpus.counts, corpus.listings.market_codes, 0.75)
        for _ in range(5):
            skip_gram._by_autograd(tables, pairs.read(corpus, 0, 300, 0, 2), drawn, settings, run)
        return float(tables.centres.norm())

    for name in ("l2", "l1"):
        assert size(replace(COMPILED, regulariser=name, regularisation=0.3)) < 0.8 * size(BY_AUTOGRAD)


@pytest.mark.parametrize("change", [{"loss": "none"}, {"regulariser": "l3"}])
def test_a_loss_that_is_not_there_is_told_with_those_that_are(change: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"`(loss|regulariser)` must be one of .*, not '(none|l3)'"):
        trained(planted(), replace(COMPILED, **change))


def test_negatives_from_the_own_market_need_markets() -> None:
    with pytest.raises(UserError, match="`market_negatives` needs the markets"):
        trained(planted(), replace(COMPILED, market_negatives=1))


def test_a_corpus_on_disk_gives_the_same_and_is_never_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "PART", 1 << 14)
    random = np.random.default_rng(0)
    many, length, size = 300_000, 4, 500
    columns = {
        "tokens": random.integers(0, size, many * length).astype(np.int32),
        "kinds": np.where(random.random(many * length) < 0.01, BOOKING, 0).astype(np.uint8),
        "seconds": random.exponential(60, many * length).astype(np.float32),
        "times": np.zeros(many * length, np.int64),
        "starts": np.arange(0, many * length + 1, length),
        "users": np.zeros(many, np.int64),
    }
    for name, column in columns.items():
        column.tofile(tmp_path / name)
    settings = SkipGram(dimensions=8, epochs=1, window=1, negatives=1, shortest_click=10)
    known = listings.collect(in_markets(["m"] * size))
    held = trained(Corpus(known, **columns), settings)
    mapped = {name: np.memmap(tmp_path / name, column.dtype, "r") for name, column in columns.items()}
    total = sum(columns[name].nbytes for name in ("tokens", "kinds", "seconds"))
    del columns
    tracemalloc.start()
    found = trained(Corpus(known, **mapped), settings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.tobytes() == held.tobytes()
    assert peak < total / 4


def test_a_rows_moves_are_added_up_before_it_is_moved() -> None:
    table, sums = torch.zeros(3, 2), torch.zeros(3)
    rows = torch.tensor([2, 0, 2])
    moves = torch.tensor([[1.0, 0.0], [3.0, 4.0], [1.0, 2.0]])
    skip_gram.descend(table, sums, rows, moves, 0.1)
    # Row 2 moves by (2, 2), whose mean square is 4; row 0 by (3, 4), of mean square 12.5.
    assert sums.tolist() == [12.5, 0, 4]
    np.testing.assert_allclose(table[2], [-0.1, -0.1], rtol=1e-6)
    np.testing.assert_allclose(table[0], -0.1 * np.array([3, 4]) / 12.5**0.5, rtol=1e-6)
    assert table[1].tolist() == [0, 0]


def _sums(tables: skip_gram.Tables) -> tuple[torch.Tensor, torch.Tensor]:
    return tables.centre_sums, tables.context_sums
