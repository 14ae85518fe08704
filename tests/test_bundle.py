from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models import bundle, index
from models.bundle import Bundle, Training
from models.errors import UserError
from models.index import LARGE
from models.listings import Listing, collect
from models.ranker import default
from tests.made import a_bundle, act, unit, visit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bundle.write(tmp_path / "bundles", a_bundle(markets=["m"] * 50))
    return tmp_path / "bundles"


def other(folder: Path) -> Path:
    return bundle.write(folder, a_bundle(20))


def test_a_written_bundle_is_read_as_it_was(folder: Path) -> None:
    made, read = a_bundle(markets=["m"] * 50), bundle.load(folder)
    assert read.name == read.folder.name == os.readlink(folder / "current")  # type: ignore[union-attr]
    assert read.listings.ids == made.listings.ids
    assert read.vectors.dtype == np.float32
    assert read.vectors.flags.c_contiguous
    np.testing.assert_array_equal(read.vectors, made.vectors)
    np.testing.assert_array_equal(read.ranker.weights, made.ranker.weights)
    session = visit(act(0, "l1"), act(1, "l2"))
    assert read.encode(session) == made.encode(session)
    assert read.index.nearest(made.vectors[7], 3)[0][0] == 7


def test_the_same_content_has_the_same_name_and_another_content_another(folder: Path, tmp_path: Path) -> None:
    again = bundle.write(tmp_path / "elsewhere", a_bundle(markets=["m"] * 50))
    first = bundle.load(folder)
    assert again.name == first.name
    assert other(folder).name != first.name
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["current", first.name, bundle.load(folder).name]
    )


def test_current_is_the_bundle_written_last_and_each_can_be_read_by_itself(folder: Path) -> None:
    first = bundle.load(folder).name
    second = other(folder).name
    assert bundle.load(folder).name == second
    assert bundle.load(folder / first).name == first
    bundle.write(folder, a_bundle(markets=["m"] * 50))
    assert bundle.load(folder).name == first


def test_a_bundle_may_be_copied_under_another_name(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "current", tmp_path / "mounted")
    assert bundle.load(tmp_path / "mounted").name == bundle.load(folder).name


@pytest.mark.parametrize("name", ["vectors.safetensors", "listings.json", "ranker.json"])
def test_a_changed_file_is_refused(folder: Path, name: str) -> None:
    path = folder / "current" / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=f"{name}: damaged"):
        bundle.load(folder)
    path.unlink()
    with pytest.raises(UserError, match=name):
        bundle.load(folder)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A bundle of so many listings that it has a graph."""
    return bundle.write(tmp_path / "large", a_bundle(LARGE + 1))


def test_a_changed_index_is_refused_when_it_is_asked_for(large: Path) -> None:
    path = large / "index.hnsw"
    path.write_bytes(path.read_bytes()[:-9])
    read = bundle.load(large)
    with pytest.raises(UserError, match="damaged"):
        _ = read.index


def test_a_changed_manifest_is_refused(folder: Path) -> None:
    path = folder / "current" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"decay": 0.7', b'"decay": 0.8'))
    with pytest.raises(UserError, match="the manifest was changed"):
        bundle.load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a bundle's manifest"),
        (b"{}", "not a bundle's manifest"),
        (b'{"format": "insession-bundle", "version": 2}', "of version 2; this program reads 1"),
        (b'{"format": "insession-bundle", "version": 1}', "missing required field"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        bundle.load(tmp_path)


def test_where_there_is_no_bundle_the_error_says_how_to_make_one(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="insession train"):
            bundle.load(path)


def test_a_folder_that_can_not_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        bundle.write(tmp_path / "file" / "bundles", a_bundle(3))


def test_vectors_that_are_not_of_unit_length_or_too_few_are_refused() -> None:
    facts = Training(source="embeddings", data="made")
    known = collect([Listing(listing_id="a"), Listing(listing_id="b")])
    for vectors in (2 * unit(2, 4), unit(3, 4), np.full((2, 4), np.nan, np.float32)):
        with pytest.raises(ValueError, match=r"length 1|listings"):
            bundle.assemble(listings=known, vectors=vectors, ranker=default(), training=facts)
    assert isinstance(
        bundle.assemble(
            listings=known, vectors=np.zeros((2, 4), np.float32), ranker=default(), training=facts
        ),
        Bundle,
    )


def test_the_manifest_names_every_other_file(folder: Path, large: Path) -> None:
    for made, has_a_graph in ((folder / "current", False), (large, True)):
        manifest = bundle.read_manifest(made)
        assert {path.name for path in made.iterdir()} == {"manifest.json", *manifest.files}
        assert ("index.hnsw" in manifest.files) == has_a_graph


def test_the_manifest_says_what_the_index_finds_and_it_is_walked_as_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "EF", 4)
    monkeypatch.setattr(index, "LINKS", 6)
    said: list[str] = []
    path = bundle.write(tmp_path, a_bundle(LARGE * 2, 16), on_raise=said.append)
    measured = bundle.read_manifest(path).index
    assert measured is not None
    assert measured.ef > 100
    assert measured.recall_at_100 >= 0.95
    assert measured.links == 6
    assert any("below 0.95" in line for line in said)
    read = bundle.load(path)
    assert {graph.ef for graph in read.index.graphs.values()} == {measured.ef}


def test_a_bundle_of_before_the_index_was_measured_is_read(large: Path) -> None:
    content = msgspec.json.decode((large / "manifest.json").read_bytes())
    del content["index"]
    old = large.with_name("old")
    shutil.copytree(large, old)
    (old / "manifest.json").write_bytes(msgspec.json.encode(content))
    read = bundle.load(old)
    assert read.manifest.index is None
    assert read.index.nearest(read.vectors[7], 3)[0][0] == 7


def test_a_bundle_is_read_without_torch_pyarrow_or_its_index(folder: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "sys.modules['torch'] = sys.modules['pyarrow'] = None\n"
        "from models import bundle, rank\n"
        f"made = bundle.load(Path({str(folder)!r}))\n"
        "assert 'index' not in vars(made)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parent.parent)
