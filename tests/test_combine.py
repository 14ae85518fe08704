from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models import bundle, listings, ranker
from models.bundle import Training
from models.errors import UserError
from models.listings import Listing
from models.training import combine, pipeline
from models.training.combine import Combine
from models.training.corpus import Floats
from models.training.matrix_factorisation import MatrixFactorisation
from models.training.run import Run
from models.training.session_encoder import SessionEncoder
from models.training.skip_gram import SkipGram
from tests.made import a_corpus, unit
from tests.planted import GROUPS, planted

QUICK = SkipGram(dimensions=8, epochs=2)


def written(folder: Path, vectors: Floats, until: int | None = None, first: int = 0) -> Path:
    """A bundle of the listings l<first>, ... with these vectors."""
    known = [Listing(listing_id=f"l{first + row}") for row in range(len(vectors))]
    training = Training(source="recording", data="made", embeddings_until=until)
    made = bundle.assemble(
        listings=listings.collect(known), vectors=vectors, ranker=ranker.default(), training=training
    )
    return bundle.write(folder, made)


def test_vectors_stand_one_after_the_other_or_are_projected(tmp_path: Path) -> None:
    one, other = unit(20, 6, 1), unit(20, 3, 2)
    paths = f"{written(tmp_path / 'a', one)}, {written(tmp_path / 'b', other)}"
    corpus = a_corpus([range(20)])
    whole = combine.train(corpus, Combine(paths, 0), Run(np.random.default_rng(1)))
    np.testing.assert_allclose(whole, np.concatenate([one, other], axis=1) / 2**0.5, atol=1e-6)
    run = Run(np.random.default_rng(1))
    made = combine.train(corpus, Combine(paths, 4), run)
    assert made.shape == (20, 4)
    left, sizes, _ = np.linalg.svd(whole, full_matrices=False)
    best = (left * sizes)[:, :4]
    best /= np.linalg.norm(best, axis=1, keepdims=True)
    np.testing.assert_allclose(made @ made.T, best @ best.T, atol=1e-4)
    assert run.metrics["kept"] == pytest.approx((sizes[:4] ** 2).sum() / (sizes**2).sum(), rel=1e-5)
    again = combine.train(corpus, Combine(paths, 4), Run(np.random.default_rng(2)))
    assert again.tobytes() == made.tobytes()


def test_a_listing_that_one_bundle_does_not_know_has_the_others_part(tmp_path: Path) -> None:
    one, other = unit(3, 4, 1), unit(3, 2, 2)
    paths = f"{written(tmp_path / 'a', one)},{written(tmp_path / 'b', other, first=2)}"
    made = combine.train(a_corpus([range(6)]), Combine(paths, 0), Run(np.random.default_rng(1)))
    np.testing.assert_allclose(made[0], [*one[0], 0, 0], atol=1e-6)
    np.testing.assert_allclose(made[4], [0, 0, 0, 0, *other[2]], atol=1e-6)
    assert not made[5].any()


def test_what_can_not_be_combined_is_refused(tmp_path: Path) -> None:
    corpus, run = a_corpus([range(6)]), Run(np.random.default_rng(1), before=1_000)
    a, b = written(tmp_path / "a", unit(3, 4)), written(tmp_path / "b", unit(3, 4, 1), until=1_001)
    elsewhere = written(tmp_path / "c", unit(3, 4), first=50)
    for paths, says in (
        (f"{a}", "two bundles or more: give --set bundles="),
        (f"{a},{tmp_path / 'none'}", "does not exist"),
        (f"{a},{b}", "fitted to events up to 1970-01-01T00:00:01.001.*, and what is from .* on must be new"),
        (f"{a},{elsewhere}", "no listing here has a vector in this bundle"),
    ):
        with pytest.raises(UserError, match=says):
            combine.train(corpus, Combine(paths, 2), run)
    with pytest.raises(UserError, match="can't make 9 dimensions of 8"):
        combine.train(corpus, Combine(f"{a},{a}", 9), run)


def groups_apart(vectors: Floats) -> float:
    """How much more like each other listings of one group are than of two."""
    similarity = vectors @ vectors.T
    group = np.arange(len(vectors)) % GROUPS
    same = group[:, None] == group
    off = ~np.eye(len(vectors), dtype=bool)
    return float(similarity[same & off].mean() - similarity[~same].mean())


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("session-encoder", SessionEncoder(dimensions=8, epochs=2, block=64, negatives=32)),
        ("skip-gram", QUICK),
        ("matrix-factorisation", MatrixFactorisation(dimensions=8, epochs=2, block=64)),
    ],
)
def test_a_warm_start_helps_on_little_data(tmp_path: Path, method: str, settings: object) -> None:
    much, little = planted(each=30, sessions=2_000), planted(each=30, sessions=60, seed=1)
    learned = pipeline.learn(much, method="skip-gram", settings=SkipGram(dimensions=8, epochs=4))
    path = written(tmp_path, learned.vectors)
    cold = pipeline.learn(little, method=method, settings=settings)
    warm = pipeline.learn(little, method=method, settings=settings, warm_start=path)
    assert groups_apart(warm.vectors) > groups_apart(cold.vectors) + 0.2


def test_listings_that_are_not_acted_on_keep_the_vectors_of_a_warm_start(tmp_path: Path) -> None:
    vectors = unit(18, 8)
    little = a_corpus([(0, 3, 6)] * 9, known=[Listing(listing_id=f"l{row}") for row in range(18)])
    warm = pipeline.learn(little, method="skip-gram", settings=QUICK, warm_start=written(tmp_path, vectors))
    kept = [little.listings.row[f"l{row}"] for row in range(18)]
    same = (warm.vectors[kept] == vectors).all(axis=1)
    assert np.flatnonzero(~same).tolist() == [0, 3, 6]


def test_a_warm_start_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a", unit(18, 4))
    with pytest.raises(UserError, match="have 4 dimensions, and 8 are to be learned; give --dimensions 4"):
        pipeline.learn(planted(), method="skip-gram", settings=QUICK, warm_start=path)
    with pytest.raises(
        UserError, match="combine starts from no vectors; it goes with session-encoder, skip-gram"
    ):
        pipeline.learn(planted(), method="combine", settings=Combine(), warm_start=path)
    elsewhere = written(tmp_path / "b", unit(3, 8), first=50)
    with pytest.raises(UserError, match="no listing here has a vector in this bundle"):
        pipeline.learn(planted(), method="skip-gram", settings=QUICK, warm_start=elsewhere)
    later = written(tmp_path / "c", unit(18, 8), until=2_000)
    with pytest.raises(UserError, match="must be new to them"):
        pipeline.learn(planted(), method="skip-gram", settings=QUICK, warm_start=later, before=1_000)
