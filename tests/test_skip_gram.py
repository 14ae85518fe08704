from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.errors import UserError
from models.training import _skip_gram, noise, pairs, skip_gram
from models.training.losses import LOSSES
from models.training.pairs import Corpus
from models.training.skip_gram import SkipGram

COMPILED = SkipGram(dimensions=8, epochs=8, block=64)
BY_AUTOGRAD = replace(COMPILED, regulariser="l2", reg=0.0)
both = pytest.mark.parametrize("settings", [COMPILED, BY_AUTOGRAD], ids=["compiled", "autograd"])


def a_corpus(sessions: list[list[int]], size: int | None = None, **more: npt.NDArray[np.generic]) -> Corpus:
    tokens = np.concatenate([np.array(session, np.int32) for session in sessions])
    starts = np.concatenate([[0], np.cumsum([len(session) for session in sessions])])
    return Corpus(tokens, starts, size or int(tokens.max()) + 1, **more)  # type: ignore[arg-type]


def planted(groups: int = 3, each: int = 6, sessions: int = 300, seed: int = 0) -> Corpus:
    """Sessions that stay within one group of listings: listing i is of group i % groups."""
    random = np.random.default_rng(seed)
    return a_corpus(
        [(random.permutation(each)[:4] * groups + random.integers(groups)).tolist() for _ in range(sessions)]
    )


def trained(corpus: Corpus, settings: SkipGram, seed: int = 1) -> npt.NDArray[np.float32]:
    torch.set_num_threads(1)
    return skip_gram.train(corpus, settings, np.random.default_rng(seed))


def finds_its_groups(vectors: npt.NDArray[np.float32], groups: int = 3) -> bool:
    similarity = vectors @ vectors.T
    group = np.arange(len(vectors)) % groups
    itself = np.eye(len(vectors), dtype=bool)
    same = (group[:, None] == group) & ~itself
    apart = similarity[same].mean() > similarity[~same & ~itself].mean() + 0.5
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
    assert finds_its_groups(skip_gram.train(planted(), COMPILED, np.random.default_rng(1), threads=3))


@both
def test_vectors_have_length_one_and_listings_never_acted_on_have_none(settings: SkipGram) -> None:
    corpus = planted()
    vectors = trained(replace(corpus, size=corpus.size + 2), settings)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1] * 18 + [0] * 2, atol=1e-5)


@both
def test_one_seed_gives_the_same_bits_and_another_seed_others(settings: SkipGram) -> None:
    one, two, other = (trained(planted(), settings, seed) for seed in (1, 1, 2))
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != other.tobytes()


@both
def test_the_loss_falls(settings: SkipGram) -> None:
    losses: dict[str, float] = {}

    def note(done: int, total: int, text: str) -> None:
        epoch, loss = text.split(", loss ")
        losses[epoch] = float(loss)

    skip_gram.train(planted(), settings, np.random.default_rng(1), on_progress=note)
    values = list(losses.values())
    assert len(values) == settings.epochs
    assert values[0] < 6 * np.log(2) * 1.1  # a pair and its five negatives, of which nothing is known
    assert values[-1] < 0.8 * values[0]


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
    arrays = [np.full((3, 4), size, np.float32) for size in (50, 50)] + [np.ones(3, np.float32) for _ in range(2)]
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
def test_compiled_code_goes_through_the_pairs_that_the_loop_goes_through(
    change: dict[str, int], expected: int
) -> None:
    """Two sessions of four: twelve pairs each at a reach of three, six at one; and one booked at its end."""
    booked = np.array([False] * 7 + [True])
    corpus = a_corpus([[0, 1, 2, 3], [4, 5, 6, 7]], booked=booked)
    settings = replace(COMPILED, **({"window": 60, "booked_context": False, "epochs": 200} | change))
    many = [_pairs(corpus, each) for each in (settings, replace(settings, regulariser="l2"))]
    # A reach of one or two is drawn now and then.
    np.testing.assert_allclose(np.array(many) / 200, expected, rtol=0.05)


def _pairs(corpus: Corpus, settings: SkipGram) -> int:
    """How many pairs a training goes through."""
    random = np.random.default_rng(0)
    drawn = noise.noise(np.bincount(corpus.tokens), None, 0.75)
    tables = skip_gram.Tables.begun(corpus.size, settings.dimensions, random, "cpu")
    step = skip_gram._by_autograd if settings.regulariser == "l2" else skip_gram._pair_by_pair
    sessions = pairs.read(corpus, 0, 2, 0.0, 2)
    if not settings.booked_context:
        sessions.booked[:] = -1
    return sum(step(tables, sessions, drawn, settings, random, 1)[1] for _ in range(settings.epochs))


@both
def test_a_booked_listing_is_near_to_clicks_beyond_the_window(settings: SkipGram) -> None:
    """Listing g begins the sessions that book listing 4 + g, with six clicks of anything in between."""
    random = np.random.default_rng(0)
    sessions = [[g, *random.integers(8, 20, 6).tolist(), 4 + g] for g in random.integers(0, 4, 400).tolist()]
    booked = np.tile(np.arange(8) == 7, 400)
    corpus = a_corpus(sessions, booked=booked)
    settings = replace(settings, window=2, epochs=15)
    own = np.arange(4)
    for context, finds in ((True, True), (False, False)):
        vectors = trained(corpus, replace(settings, booked_context=context))
        # They have the same context, what was booked, and so does what was booked with those clicked before it.
        similarity = vectors[:4] @ vectors[4:8].T
        assert ((similarity.argmax(axis=1) == own).all() and np.diag(similarity).mean() > 0.5) == finds


@both
def test_negatives_of_the_market_push_its_listings_apart(settings: SkipGram) -> None:
    """Ten markets of two styles each; a visitor stays in a market and, most of the time, with a style."""
    random = np.random.default_rng(0)
    sessions = []
    for _ in range(1_500):
        market, style = random.integers(10), random.integers(2)
        styles = np.where(random.random(4) < 0.2, 1 - style, style)
        sessions.append((market * 8 + styles * 4 + random.integers(0, 4, 4)).tolist())
    markets = (np.arange(80) // 8).astype(np.int32)
    corpus = a_corpus(sessions, 80, markets=markets)
    style = np.arange(80) // 4
    other_style = (markets[:, None] == markets) & (style[:, None] != style)
    without, with_ = (
        trained(corpus, replace(settings, market_negatives=many)) for many in (0, 5)
    )
    assert (with_ @ with_.T)[other_style].mean() < (without @ without.T)[other_style].mean() - 0.1
    unknown = replace(corpus, markets=np.full(80, -1, np.int32))
    more = trained(unknown, replace(settings, market_negatives=5))
    assert (with_ @ with_.T)[other_style].mean() < (more @ more.T)[other_style].mean() - 0.1


@both
def test_a_click_that_is_dropped_changes_nothing(settings: SkipGram) -> None:
    corpus = planted(sessions=40)
    places = np.arange(2, len(corpus.tokens), 8)
    seconds = np.full(len(corpus.tokens), np.nan, np.float32)
    seconds[places - 1] = 31
    more = Corpus(
        np.insert(corpus.tokens, places, 5),
        np.arange(0, 41) * 4 + np.searchsorted(places, np.arange(0, 41) * 4),
        corpus.size,
        seconds=np.insert(seconds, places, 29),
    )
    settings = replace(settings, shortest_click=30)
    plain = trained(replace(corpus, seconds=seconds), settings)
    assert trained(more, settings).tobytes() == plain.tobytes()
    assert trained(more, replace(settings, shortest_click=0)).tobytes() != plain.tobytes()


@both
def test_a_session_of_one_click_changes_nothing_unless_it_is_to_count(settings: SkipGram) -> None:
    corpus = planted(sessions=40)
    more = a_corpus([*np.reshape(corpus.tokens, (-1, 4)).tolist(), [3], [18]])
    plain = trained(replace(corpus, size=19), settings)
    # The sessions' new order is drawn from as many, so only the dropped ones are comparable bit by bit.
    assert trained(more, settings).tobytes() == plain.tobytes()
    counted = trained(more, replace(settings, drop_single=False))
    assert counted.tobytes() != plain.tobytes()
    assert not counted[18].any()


@both
def test_booked_sessions_weigh_more_where_they_are_oversampled(settings: SkipGram) -> None:
    """Listing 0 is seen with group 1 in sessions that book, and three times as often with group 2 in others."""
    random = np.random.default_rng(0)
    sessions = [[0, *random.choice(np.arange(1, 7), 3, replace=False).tolist()] for _ in range(40)]
    sessions += [[0, *random.choice(np.arange(7, 13), 3, replace=False).tolist()] for _ in range(120)]
    sessions += [random.choice(np.arange(13, 25), 4, replace=False).tolist() for _ in range(300)]
    booked = np.zeros(4 * len(sessions), np.bool_)
    booked[3:160:4] = True
    corpus = a_corpus(sessions, booked=booked)
    settings = replace(settings, booked_context=False)

    def leaning(times: int) -> float:
        similarity = trained(corpus, replace(settings, booked_times=times))
        return float((similarity[1:7] @ similarity[0]).mean() - (similarity[7:13] @ similarity[0]).mean())

    assert leaning(10) > leaning(1)


@both
def test_subsampling_drops_clicks_on_frequent_listings(settings: SkipGram) -> None:
    """Listing 0 stands between the listings of each pair, and keeps them from each other at a window of one."""
    random = np.random.default_rng(0)
    sessions = [[1 + 2 * k, 0, 2 + 2 * k] for k in random.integers(0, 20, 600).tolist()]
    settings = replace(settings, window=1, epochs=10, dimensions=16)
    corpus = a_corpus(sessions)

    def apart(threshold: float) -> float:
        vectors = trained(corpus, replace(settings, subsampling=threshold))
        similarity = vectors[1::2] @ vectors[2::2].T
        return float(np.diag(similarity).mean() - similarity.mean())

    assert apart(0.001) > apart(0.0) + 0.2


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_finds_planted_groups(loss: str) -> None:
    assert finds_its_groups(trained(planted(), replace(BY_AUTOGRAD, loss=loss)))


def test_a_new_loss_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "squares", lambda p, n: (1 - p).square() + n.square().sum(dim=1))
    assert finds_its_groups(trained(planted(), replace(COMPILED, loss="squares")))


def test_a_regulariser_keeps_vectors_small() -> None:
    def size(settings: SkipGram) -> float:
        random = np.random.default_rng(1)
        corpus = planted()
        tables = skip_gram.Tables.begun(corpus.size, 8, random, "cpu")
        drawn = noise.noise(np.bincount(corpus.tokens), None, 0.75)
        for _ in range(5):
            skip_gram._by_autograd(tables, pairs.read(corpus, 0, 300, 0, 2), drawn, settings, random, 1)
        return float(tables.centres.norm())

    for name in ("l2", "l1"):
        assert size(replace(COMPILED, regulariser=name, reg=0.3)) < 0.8 * size(BY_AUTOGRAD)


@pytest.mark.parametrize("change", [{"loss": "none"}, {"regulariser": "l3"}])
def test_a_loss_that_is_not_there_is_told_with_those_that_are(change: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"skip-gram knows no .*; there are "):
        trained(planted(), replace(COMPILED, **change))


def test_a_corpus_on_disk_gives_the_same_and_is_never_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "PART", 1 << 14)
    random = np.random.default_rng(0)
    many, length, size = 300_000, 4, 500
    columns = {
        "tokens": random.integers(0, size, many * length).astype(np.int32),
        "seconds": random.exponential(60, many * length).astype(np.float32),
        "booked": random.random(many * length) < 0.01,
        "starts": np.arange(0, many * length + 1, length),
    }
    for name, column in columns.items():
        column.tofile(tmp_path / name)
    settings = SkipGram(dimensions=8, epochs=1, window=1, negatives=1, shortest_click=10, subsampling=0.002)
    markets = np.zeros(size, np.int32)
    held = trained(Corpus(size=size, markets=markets, **columns), settings)  # type: ignore[arg-type]
    mapped = {name: np.memmap(tmp_path / name, column.dtype, "r") for name, column in columns.items()}
    total = sum(column.nbytes for column in columns.values())
    del columns
    tracemalloc.start()
    found = trained(Corpus(size=size, markets=markets, **mapped), settings)  # type: ignore[arg-type]
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
