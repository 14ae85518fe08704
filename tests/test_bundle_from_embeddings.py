from __future__ import annotations

from pathlib import Path

import click
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from insession import train
from insession.bundle import command
from models import bundle
from models.errors import UserError
from models.index import LARGE
from models.rank import Candidate, rank
from models.training.embedding_files import read_embeddings
from models.visitor import Visitor
from tests.made import START, act, unit, user_in

IDS = ["red", "dark blue", "7"]
VECTORS = [[3.0, 0.0, 4.0], [0.0, -2.0, 0.0], [1.0, 1.0, 1.0]]
UNIT = np.array(VECTORS) / np.linalg.norm(VECTORS, axis=1, keepdims=True)
WORD2VEC = "3 3\nred 3 0 4\ndark blue 0 -2e0 0\n7 1 1 1 \n"


def parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def test_all_formats_give_the_same_unit_vectors(tmp_path: Path) -> None:
    columns = dict(zip(("x", "y", "z"), np.array(VECTORS).T.tolist(), strict=True))
    fixed = pa.array(VECTORS, pa.list_(pa.float32(), 3))
    files = [
        parquet(tmp_path / "list.parquet", listing_id=IDS, vector=VECTORS, price=[1, 2, 3]),
        parquet(tmp_path / "fixed.parquet", id=IDS, vector=fixed),
        parquet(tmp_path / "columns.parquet", listing_id=IDS, name=IDS, **columns),
        npz(tmp_path / "v.npz", ids=np.array(IDS), vectors=np.array(VECTORS)),
        text(tmp_path / "v.txt", WORD2VEC),
        text(tmp_path / "v.vec", WORD2VEC),
    ]
    for path in files:
        ids, vectors = read_embeddings(path)
        assert ids == IDS
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, UNIT, rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "v.txt:1: not word2vec text"),
        ("red 1 0\n", "v.txt:1: not word2vec text"),
        ("1 0\nred\n", "v.txt:1: not word2vec text"),
        ("2 2\na 1 0\nb 1\n", "v.txt:3: not an id and 2 numbers"),
        ("2 2\na 1 0\nb 1 2 3\n", "v.txt:3: not an id and 2 numbers"),
        ("1 2\na 1 x\n", "v.txt:2: not an id and 2 numbers"),
        ("2 2\na 1 0\na 0 1\n", "line 3: the id `a` stands there twice"),
        ("2 2\na 1 0\nb 0 0\n", "line 3: the vector of `b` is zero"),
        ("2 2\na 1 0\nb nan 0\n", "line 3: the vector of `b` has a number that is not finite"),
        ("2 2\na 1 0\nb -inf 0\n", "line 3: the vector of `b` has a number that is not finite"),
        ("3 2\na 1 0\nb 0 1\n", "2 embeddings, but its first line says 3"),
        ("0 2\n", "no embeddings"),
    ],
)
def test_wrong_word2vec_text_is_refused_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_embeddings(text(tmp_path / "v.txt", content))
    assert "v.txt" in str(caught.value)


def test_word2vecs_binary_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.bin").write_bytes(b"1 2\nred \x00\x80\x80\xbf\x00\x00\x80\x3f")
    with pytest.raises(UserError, match="binary format is not read"):
        read_embeddings(tmp_path / "v.bin")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": ["a"], "vector": [[1.0]]}, "no column `listing_id` or `id`; it has name, vector"),
        ({"id": ["a"], "name": ["a"]}, "neither a column `vector` nor columns of numbers"),
        ({"id": ["a"], "vector": ["1 2"]}, "must hold lists of numbers, and holds string"),
        ({"id": ["a"], "vector": [["1", "2"]]}, "must hold lists of numbers"),
        (
            {"id": ["a", "b"], "vector": [[1.0, 2.0], [1.0]]},
            "row 2: the vector of `b` has 1 numbers, the first has 2",
        ),
        ({"id": ["a", "b"], "vector": [[1.0, 2.0], None]}, "row 2: the vector of `b` has 0 numbers"),
        ({"id": ["a", "b"], "vector": [[1.0, 2.0], [None, 1.0]]}, "row 2: .* not finite"),
        ({"id": ["a", "b"], "x": [1.0, None]}, "row 2: .* not finite"),
        ({"id": ["a", "b", "a"], "vector": [[1.0], [1.0], [1.0]]}, "row 3: the id `a` stands there twice"),
        ({"id": ["a", None], "vector": [[1.0], [1.0]]}, "row 2: an id must have 1 to 256 characters"),
        ({"id": pa.array([], pa.string()), "vector": pa.array([], pa.list_(pa.float32()))}, "no embeddings"),
    ],
)
def test_a_wrong_parquet_is_refused_with_its_row(
    tmp_path: Path, columns: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_embeddings(parquet(tmp_path / "v.parquet", **columns))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": ["a"]}, "no array `vectors`; it has ids"),
        ({"ids": ["a"], "vectors": [1.0]}, "must be numbers of shape"),
        ({"ids": ["a", "b"], "vectors": [[1.0]]}, "2 ids, but 1 vectors"),
        ({"ids": [1.5], "vectors": [[1.0]]}, "`ids` must be a list of strings or whole numbers"),
        ({"ids": np.array(["a"], object), "vectors": [[1.0]]}, "without pickles"),
        ({"ids": ["a", "b"], "vectors": [[1.0], [1e300]]}, "row 2: .* not finite"),
    ],
)
def test_a_wrong_npz_is_refused(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_embeddings(npz(tmp_path / "v.npz", **arrays))


def test_what_is_no_npz_or_parquet_or_is_absent_is_refused(tmp_path: Path) -> None:
    for name in ("v.npz", "v.parquet"):
        with pytest.raises(UserError, match=name):
            read_embeddings(text(tmp_path / name, "no"))
    with pytest.raises(UserError, match="no such file"):
        read_embeddings(tmp_path / "absent.npz")


def test_the_command_makes_a_bundle_that_ranks_and_says_how_many_matched(tmp_path: Path) -> None:
    embeddings = text(tmp_path / "v.txt", WORD2VEC)
    listings = text(tmp_path / "l.csv", "listing_id,market\nred,Rio\ngreen,Rio\n7,Lisbon\n")
    arguments = [
        "--embeddings", str(embeddings), "--listings", str(listings), "--out", str(tmp_path / "b"),
    ]  # fmt: skip
    report = msgspec.json.decode(CliRunner().invoke(command, [*arguments, "--json"]).stdout)
    assert (report["embeddings"], report["listings"], report["matched"]) == (3, 3, 2)
    made = bundle.load(tmp_path / "b")
    assert made.name == report["bundle"]
    assert made.listings.ids == ["7", "dark blue", "green", "red"]
    assert made.vectors.any(axis=1).tolist() == [True, True, False, True]
    assert made.listings.market(3) == "Rio"
    assert made.manifest.training.ranker == "default"
    user = user_in(made, act(0, "7"))
    ranked = rank(made, Visitor.of(user), [Candidate("green"), Candidate("red")], timestamp=START + 1)
    assert ranked.order.tolist() == [1, 0]
    said = CliRunner().invoke(command, arguments).stdout
    assert "2 of 3 embeddings are of a listing in the listings file; 1 of its 3 listings" in said
    assert str(tmp_path / "b" / made.name) in said


@pytest.mark.parametrize("made_by", [command, train.command])
def test_more_threads_than_any_machine_has_use_for_are_refused(made_by: click.Command) -> None:
    result = CliRunner().invoke(made_by, ["--threads", "100000"])
    assert result.exit_code == 2
    assert "100000 is not in the range 1<=x<=256" in result.stderr


@pytest.mark.parametrize("content", ["listing_id\nRED\n", "listing_id\n"])
def test_where_no_embedding_matches_nothing_is_written(tmp_path: Path, content: str) -> None:
    embeddings = text(tmp_path / "v.txt", WORD2VEC)
    listings = text(tmp_path / "l.csv", content)
    arguments = ["--embeddings", embeddings, "--listings", listings, "--out", tmp_path / "b"]
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert isinstance(result.exception, UserError)
    assert str(listings) in str(result.exception)
    assert not (tmp_path / "b").exists()


def test_the_command_says_what_the_index_finds(tmp_path: Path) -> None:
    ids = [f"l{row}" for row in range(LARGE + 100)]
    embeddings = npz(tmp_path / "v.npz", ids=np.array(ids), vectors=unit(len(ids), 8))
    listings = text(tmp_path / "l.csv", "listing_id\n" + "".join(f"{name}\n" for name in ids))
    arguments = [
        "--embeddings", str(embeddings), "--listings", str(listings), "--out", str(tmp_path / "b"),
    ]  # fmt: skip
    report = msgspec.json.decode(CliRunner().invoke(command, [*arguments, "--json"]).stdout)
    measured = bundle.load(tmp_path / "b").manifest.index
    assert measured is not None
    assert report["index"] == msgspec.to_builtins(measured)
    assert (
        f"finds {measured.recall_at_100:.3f} of the 100 nearest"
        in CliRunner().invoke(command, arguments).stdout
    )
