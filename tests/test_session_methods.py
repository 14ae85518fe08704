"""item2vec, node2vec, EGES and Meta-Prod2Vec: what each finds, and what it adds to skip-gram."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.errors import UserError
from models.listings import Listing
from models.training import eges, item2vec, meta_prod2vec, noise, side, skip_gram, walks
from models.training.corpus import Corpus
from models.training.eges import Eges
from models.training.item2vec import Item2Vec
from models.training.meta_prod2vec import MetaProd2Vec
from models.training.methods import METHODS
from models.training.node2vec import Node2Vec
from models.training.run import Floats, Run
from models.training.skip_gram import SkipGram
from tests.made import a_corpus
from tests.planted import GROUPS, agreement, planted

TYPES = [
    Listing(listing_id=f"l{row}", type="abc"[row % GROUPS], attributes={"pool": row % 2 == 0})
    for row in range(GROUPS * 8)
]
"""Two more of each type than are acted on."""
SETTINGS: dict[str, Any] = {
    "item2vec": Item2Vec(dimensions=8, epochs=8, subsampling=0, block=128),
    "node2vec": Node2Vec(dimensions=8, epochs=6, length=10, walks=4, block=128),
    "eges": Eges(dimensions=8, epochs=4, block=128, walks=8, side="type"),
    "meta-prod2vec": MetaProd2Vec(dimensions=8, epochs=8, block=64, side="type"),
}


def learned(name: str, corpus: Corpus, settings: Any = None, seed: int = 1, **given: Any) -> Floats:
    torch.set_num_threads(1)
    run = Run(np.random.default_rng(seed), **given)
    return METHODS[name].train(corpus, settings or SETTINGS[name], run)


@pytest.mark.parametrize("name", SETTINGS)
def test_it_finds_planted_groups_and_gives_unit_vectors(name: str) -> None:
    vectors = learned(name, planted(known=TYPES))
    acted = vectors[: GROUPS * 6]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(acted, axis=1), 1, atol=1e-5)
    assert agreement(acted) == 1.0
    cold = vectors[GROUPS * 6 :]
    assert cold.any() == (name in ("eges", "meta-prod2vec"))


@pytest.mark.parametrize("name", SETTINGS)
def test_one_seed_gives_the_same_bits_and_a_run_that_was_ended_goes_on_to_them(
    name: str, tmp_path: Path
) -> None:
    corpus = planted(sessions=40, known=TYPES)
    whole = learned(name, corpus)
    assert learned(name, corpus).tobytes() == whole.tobytes()
    assert learned(name, corpus, seed=2).tobytes() != whole.tobytes()

    def end(done: int, total: int, note: str) -> None:
        if note.startswith("epoch 3"):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        learned(name, corpus, checkpoints=tmp_path, what="this", on_progress=end)
    run = Run(np.random.default_rng(9), checkpoints=tmp_path, what="this")
    assert METHODS[name].train(corpus, SETTINGS[name], run).tobytes() == whole.tobytes()
    assert run.curve[-1].loss < run.curve[0].loss


@pytest.mark.parametrize("name", SETTINGS)
def test_any_loss_and_regulariser_can_be_named_and_others_are_refused(name: str) -> None:
    corpus, values = planted(sessions=100, known=TYPES), SETTINGS[name]
    kind = type(values)
    softmax = kind(
        **{field: getattr(values, field) for field in METHODS[name].fields} | {"loss": "sampled-softmax"}
    )
    assert agreement(learned(name, corpus, softmax)[: GROUPS * 6]) > 0.9
    held = kind(
        **{field: getattr(values, field) for field in METHODS[name].fields}
        | {"regulariser": "l2", "regularisation": 1.0}
    )
    assert learned(name, corpus, held).tobytes() != learned(name, corpus).tobytes()
    for wrong in (kind(loss="no"), kind(regulariser="no")):
        with pytest.raises(UserError, match="no"):
            learned(name, corpus, wrong)


def test_item2vecs_sets_have_each_listing_once_and_no_order() -> None:
    corpus = a_corpus([(3, 1, 3, 2), (4, 4), (2, 0)])
    found = item2vec.sets(corpus)
    assert found.tokens.tolist() == [1, 2, 3, 0, 2]
    assert found.starts.tolist() == [0, 3, 5]
    random = np.random.default_rng(0)
    orders = {tuple(item2vec.mixed(found, random).tokens.tolist()) for _ in range(100)}
    assert len(orders) == 12  # 3! times 2!
    assert all(set(order[:3]) == {1, 2, 3} for order in orders)


def test_item2vec_brings_the_ends_of_long_visits_together_where_skip_gram_does_not() -> None:
    random = np.random.default_rng(0)
    # Twelve listings in their order, of one of two kinds: the first and the last are far apart.
    sessions = [list(range(12) if random.random() < 0.5 else range(12, 24)) for _ in range(150)]
    wide = learned("item2vec", a_corpus(sessions))
    near = skip_gram.train(
        a_corpus(sessions), SkipGram(dimensions=8, epochs=8, window=1), Run(np.random.default_rng(1))
    )
    assert wide[0] @ wide[11] > near[0] @ near[11] + 0.3
    assert wide[0] @ wide[11] > wide[0] @ wide[23] + 0.5


def test_item2vec_thins_out_frequent_listings() -> None:
    corpus = planted()
    thinned = learned("item2vec", corpus, Item2Vec(dimensions=8, epochs=2, subsampling=1e-3))
    assert (
        thinned.tobytes()
        != learned("item2vec", corpus, Item2Vec(dimensions=8, epochs=2, subsampling=0)).tobytes()
    )


def test_the_click_graph_counts_consecutive_clicks() -> None:
    corpus = a_corpus([(0, 1, 2), (0, 1), (2, 1)])
    ways = walks.graph(corpus, directed=True)
    assert [divmod(key, 3) for key in ways.keys.tolist()] == [(0, 1), (1, 2), (2, 1)]
    assert np.diff(ways.up_to).tolist() == [2, 1, 1]
    both = walks.graph(corpus, directed=False)
    assert [divmod(key, 3) for key in both.keys.tolist()] == [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert np.diff(both.up_to).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize(("p", "q"), [(1, 1), (4, 0.25), (0.25, 4), (20, 0.05)])
def test_a_walks_step_has_the_papers_chances(p: float, q: float) -> None:
    # Of 1: 0, whence the walk came, by an edge of weight 3; 2, a neighbour of 0, of 2; 3 and 4, away from it, 1 each.
    over = walks.graph(a_corpus([(0, 1)] * 3 + [(2, 1)] * 2 + [(1, 3), (4, 1), (0, 2)]), directed=False)
    random = np.random.default_rng(0)
    found = walks.walk(over, np.zeros(60_000, np.int64), 3, random, p, q)
    last = found[found[:, 1] == 1, 2]
    expected = np.array([3 / p, 0, 2, 1 / q, 1 / q])
    shares = np.bincount(last, minlength=5) / len(last)
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.012)


def test_a_small_q_goes_outward_and_a_large_p_avoids_going_back() -> None:
    # A ring of cliques of five, each joined to the next by one edge.
    inside = [(5 * c + a, 5 * c + b) for c in range(8) for a in range(5) for b in range(a)]
    between = [(5 * c, 5 * ((c + 1) % 8) + 1) for c in range(8)]
    over = walks.graph(a_corpus(inside + between), directed=False)

    def seen(p: float, q: float) -> tuple[float, float]:
        found = walks.walk(over, np.arange(40).repeat(50), 20, np.random.default_rng(0), p, q)
        cliques = np.mean([len(set(row)) for row in (found // 5).tolist()])
        return float(cliques), float((found[:, 2:] == found[:, :-2]).mean())

    outward, inward = seen(1, 0.1), seen(1, 10)
    assert outward[0] > 1.3 * inward[0]
    avoiding, returning = seen(10, 1), seen(0.1, 1)
    assert avoiding[1] < 0.1 < 0.5 < returning[1]


def test_a_directed_walk_ends_where_nobody_went_on() -> None:
    over = walks.graph(a_corpus([(0, 1, 2)]), directed=True)
    found = walks.walk(over, np.array([0, 1, 2]), 4, np.random.default_rng(0))
    assert found.tolist() == [[0, 1, 2, -1], [1, 2, -1, -1], [2, -1, -1, -1]]
    ((sessions, done),) = walks.walks(over, 1, 4, np.random.default_rng(0))
    assert done == 1
    assert sorted(sessions.tokens.tolist()) == [0, 1, 1, 2, 2]


def test_node2vec_joins_what_no_visit_had_together() -> None:
    # 0 and 3 never stand in one visit, and lie on the same way; 4 to 7 are another.
    sessions = [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 7)] * 40
    vectors = learned("node2vec", a_corpus(sessions))
    assert vectors[0] @ vectors[3] > vectors[0] @ vectors[7] + 0.5


def test_egess_vector_is_equation_7() -> None:
    random = np.random.default_rng(0)
    own, about, weights = (torch.from_numpy(random.normal(size=size)) for size in ((2, 3), (2, 2, 3), (2, 3)))
    known = torch.tensor([[True, True], [False, True]])
    found = eges.joined(own, about, known, weights)
    for row in range(2):
        parts = [own[row], *(about[row, at] for at in range(2) if known[row, at])]
        shares = torch.cat([weights[row, :1], weights[row, 1:][known[row]]]).exp()
        expected = sum(share * part for share, part in zip(shares, parts, strict=True)) / shares.sum()
        torch.testing.assert_close(found[row], expected)


def test_a_fields_several_values_count_as_their_mean() -> None:
    of = side.Side(
        ["type", "extras"],
        ["type=a", "extras=x", "extras=y"],
        np.array([[0, 1, 2], [-1, 1, -1]], np.int32),
        np.array([0, 1, 1]),
    )
    fields, table = eges.Fields(of, torch.device("cpu")), torch.eye(3)
    rows = torch.tensor([0, 1])
    means, known = fields.means(rows, table[fields.codes(rows)])
    assert means.tolist() == [[[1, 0, 0], [0, 0.5, 0.5]], [[0, 0, 0], [0, 1, 0]]]
    assert known.tolist() == [[True, True], [False, True]]


@pytest.mark.parametrize("name", ["eges", "meta-prod2vec"])
def test_a_cold_listing_lands_near_its_type(name: str) -> None:
    vectors = learned(name, planted(known=TYPES))
    similarity = vectors[GROUPS * 6 :] @ vectors[: GROUPS * 6].T
    group = np.arange(GROUPS * 8) % GROUPS
    same = group[GROUPS * 6 :, None] == group[: GROUPS * 6]
    assert similarity[same].min() > similarity[~same].max()


@pytest.mark.parametrize("name", ["eges", "meta-prod2vec"])
def test_side_information_brings_listings_nearer_that_clicks_alone_leave_apart(name: str) -> None:
    # Two visits' worth of clicks say nothing of 0 to 5 and 6 to 11 but their types, in pairs that never meet.
    sessions = [(2 * at, 2 * at + 1) for at in range(6)] * 20
    known = [Listing(listing_id=f"l{row}", type="a" if row < 6 else "b") for row in range(12)]
    apart = np.array([(one // 2 != other // 2) for one in range(6) for other in range(6)]).reshape(6, 6)

    def gain(vectors: Floats) -> float:
        similarity = vectors @ vectors.T
        return float(similarity[:6, :6][apart].mean() - similarity[:6, 6:].mean())

    with_types = learned(name, a_corpus(sessions, known))
    without = skip_gram.train(
        a_corpus(sessions, known), SkipGram(dimensions=8, epochs=4), Run(np.random.default_rng(1))
    )
    assert gain(with_types) > gain(without) + 0.3


def test_ges_weighs_all_alike_and_eges_does_not() -> None:
    corpus = planted(known=TYPES)
    alike = learned("eges", corpus, Eges(dimensions=8, epochs=2, weighted=False, side="type"))
    assert alike.tobytes() != learned("eges", corpus, Eges(dimensions=8, epochs=2, side="type")).tobytes()


def test_meta_prod2vecs_pairs_are_the_papers_five_terms() -> None:
    counts = np.array([1, 1, 1, 1])
    nowhere = np.full(4, -1, np.int32)
    drawn = (noise.noise(counts, nowhere, 1.0), noise.noise(counts[:2], nowhere[:2], 1.0))
    made = meta_prod2vec.block(
        np.array([0, 2]),
        np.array([1, 3]),
        (np.array([0, -1]), np.array([1, 0])),
        drawn,
        MetaProd2Vec(negatives=2, meta_weight=0.25),
        np.random.default_rng(0),
    )
    # Listings are 0 to 3, values 4 and 5; nothing is known of listing 2.
    found = list(zip(made.centres.tolist(), made.contexts[:, 0].tolist(), made.shares.tolist(), strict=True))
    assert found == [
        *((0, 1, 1.0), (2, 3, 1.0)),  # J|I
        *((0, 5, 0.25), (2, 4, 0.25)),  # M|I
        (4, 1, 0.25),  # J|M
        (4, 5, 0.25),  # M|M
        (4, 0, 0.25),  # I|M
    ]
    of_values = made.contexts[:, 0] >= 4
    assert ((made.contexts >= 4) == of_values[:, None]).all()
    assert (made.contexts[:, 1:] != made.contexts[:, :1]).all()


@pytest.mark.parametrize("name", ["eges", "meta-prod2vec"])
def test_without_side_information_it_says_what_is_missing(name: str) -> None:
    for known in ((), [Listing(listing_id=f"l{row}", market="Rio") for row in range(GROUPS * 6)]):
        with pytest.raises(UserError, match=rf"{name} needs .*market,type,price,attributes.*--listings FILE"):
            learned(name, planted(known=known), type(SETTINGS[name])())
    with pytest.raises(
        UserError, match=r"can't name 'colour'; there are market, type, price, attributes, attr.*pool"
    ):
        learned(name, planted(known=TYPES), type(SETTINGS[name])(side="type, colour"))


def test_meta_prod2vec_refuses_side_information_of_listings_alone_that_nobody_acted_on() -> None:
    bare = [Listing(listing_id=f"l{row}") for row in range(18)]
    new = [Listing(listing_id=f"l{row}", type="ab"[row % 2]) for row in range(18, 24)]
    with pytest.raises(UserError, match=r"meta-prod2vec needs .* all that is known is of others"):
        learned("meta-prod2vec", planted(known=[*bare, *new]), MetaProd2Vec())
