"""A trained bundle: everything one training run made that serving needs, in an immutable folder named by its content.

    manifest.json         what it is, how it was made, and the hash of every other file
    vectors.safetensors   `vectors`, float32 [n, d]: a unit vector for each listing, zeros where nothing is known
    listings.json         the listings by column; row i has vector i
    ranker.json           the ranker's curves
    types.json            the vectors of user types and listing types, where they were learned
    encoder.safetensors   `ages`, float32 [a, d], and `start`, float32 [d], of a learned encoder
    index.hnsw            hnswlib's graph over all listings, where they are many; `index-N.hnsw` for the N-th large market

The name is the beginning of the manifest's SHA-256, so equal bundles have equal names. Beside bundles, `current` is
a link to the one in use.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from models import listings as listings_
from models import ranker as ranker_
from models import types as types_
from models.announced import Announced
from models.cold_start import ColdStart
from models.encoder import Encoder, Learned, Mean
from models.errors import UserError
from models.index import Index, Measured
from models.listings import Listing, Listings
from models.ranker import Ranker
from models.sessions import Session
from models.space import Space, log_price
from models.types import NONE, Types

VERSION = 1
NAME = re.compile(r"[0-9a-f]{16}")
CURRENT = "current"
MANIFEST, VECTORS, LISTINGS = "manifest.json", "vectors.safetensors", "listings.json"
RANKER, TYPES, ENCODER = "ranker.json", "types.json", "encoder.safetensors"
UNIT = 1e-3
"""A vector's length may differ from 1 by so much."""

Floats = npt.NDArray[np.float32]


class Epoch(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of an epoch of training."""

    loss: float
    """The mean over its examples."""
    validation: float | None = None
    """How good the vectors were then on what was held out, where something was."""


class Training(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a bundle was made. Nothing here differs between two runs with one seed."""

    source: Literal["recording", "embeddings"]
    data: str
    """The fingerprint of what it was made from."""
    seed: int | None = None
    method: str | None = None
    """How the vectors were learned,"""
    settings: dict[str, int | float | str | bool] = {}
    """with which settings,"""
    curve: list[Epoch] = []
    """and what came of each epoch."""
    embeddings_until: int | None = None
    """The timestamp (ms) before which every event is that the vectors were fitted to,"""
    trained_until: int | None = None
    """and that of the newest event that anything was learned from."""
    ranker: Literal["learned", "default"] = "default"
    metrics: dict[str, float] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The first file of a bundle."""

    format: Literal["insession-bundle"] = "insession-bundle"
    version: int = VERSION
    dimensions: int
    listings: int
    encoder: Mean
    training: Training
    index: Measured | None = None
    """What the index was measured to find; None where it was built before that was measured."""
    files: dict[str, str] = {}
    """SHA-256 of each other file, by name."""


class _Version(msgspec.Struct):
    format: Literal["insession-bundle"]
    version: int


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory. What is on disk never changes; listings may be announced to it."""

    name: str
    manifest: Manifest
    listings: Listings
    space: Space
    """The listings' vectors, row i that of `listings.ids[i]`, and behind them those of announced listings."""
    encoder: Encoder
    ranker: Ranker
    folder: Path | None = None
    types: Types = NONE
    announced: Announced = field(default_factory=Announced)
    """Listings that are not the bundle's but have a vector from their neighbours; their rows are the space's last."""

    @property
    def row(self) -> dict[str, int]:
        """The row of each listing that is known."""
        return self.space.row

    @property
    def vectors(self) -> Floats:
        """float32 [m, d]: of unit length, or zeros where nothing is known of a listing."""
        return self.space.vectors

    @cached_property
    def cold_start(self) -> ColdStart:
        return ColdStart(self.listings, self.vectors[: len(self.listings)])

    @cached_property
    def index(self) -> Index:
        """Loaded when first asked for; built where the bundle is not on disk. Raises UserError where it is broken."""
        if self.folder is None:
            return Index.build(self.vectors[: len(self.listings)], self.listings)
        for name in self.manifest.files:
            if name.endswith(".hnsw"):
                _check(self.folder, name, self.manifest)
        try:
            vectors = self.vectors[: len(self.listings)]
            return Index.load(self.folder, vectors, self.listings, self.manifest.index)
        except (OSError, RuntimeError) as error:
            raise UserError(f"{self.folder}: the index can't be read: {error}") from None

    def announce(self, listing_id: str, listing: Listing | None) -> bool:
        """Give a listing that was announced the vector of its neighbours; whether that changed anything.

        A listing that has a vector in the bundle keeps it. None withdraws the listing: it is unknown again.
        """
        own = self.listings.row.get(listing_id)
        if own is not None and self.vectors[own].any():
            return False
        vector = self.cold_start.vector(listing) if listing is not None else None
        before = self.announced.get(listing_id)
        if vector is None or listing is None:
            if before is None:
                return False
            self.announced.drop(listing_id)
            self.space.drop(listing_id, own)
            return True
        if listing == before:
            return False
        row = self.space.put(
            listing_id,
            vector,
            price=listing.price,
            type=self.types.code(listing, self.listings),
            market=listing.market,
        )
        self.announced.put(listing_id, row - len(self.listings), listing)
        return True

    def nearest(
        self, vector: npt.ArrayLike, k: int, *, market: str | None = None, exclude: Set[int] = frozenset()
    ) -> tuple[npt.NDArray[np.int64], Floats]:
        """At most `k` rows nearest to `vector`, [d], nearest first, and their similarities.

        Within `market` where one is given, without the rows in `exclude`. The bundle's own listings come from its
        index, announced ones are compared one by one. Raises UserError where the index is broken.
        """
        query = np.asarray(vector, np.float32)
        rows, similarities = self.index.nearest(query, k, market=market, exclude=exclude)
        if not self.announced:
            return rows, similarities
        size = len(self.listings)
        others = {row - size for row in exclude if row >= size}
        places, theirs = self.announced.nearest(self.vectors[size:], query, k, market=market, exclude=others)
        rows = np.concatenate([rows, places + size])
        similarities = np.concatenate([similarities, theirs])
        best = np.lexsort((rows, -similarities))[:k]
        return rows[best], similarities[best]

    def encode(self, session: Session | None) -> tuple[float, ...] | None:
        """The session's embedding as it stands in `UserEmbedding.vector`; None where nothing known was acted on."""
        return self.encoder.encode(session)


def assemble(
    *,
    listings: Listings,
    vectors: Floats,
    ranker: Ranker,
    training: Training,
    encoder: Mean | None = None,
    learned: Learned | None = None,
    types: Types = NONE,
) -> Bundle:
    """A bundle in memory, not yet named; its encoder is the decayed mean where none was `learned`.

    Raises ValueError where rows are not of unit length or zero, or differ in number, or do not fit the encoder.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    if vectors.ndim != 2 or len(vectors) != len(listings):
        raise ValueError(f"{len(listings)} listings, but vectors of shape {vectors.shape}")
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.all((lengths == 0) | (np.abs(lengths - 1) < UNIT)):
        raise ValueError("vectors must have length 1, or be zeros")
    settings = encoder or Mean()
    if learned is not None:
        _fit(learned, vectors.shape[1])
    manifest = Manifest(
        dimensions=vectors.shape[1], listings=len(listings), encoder=settings, training=training
    )
    space = _space(listings, vectors, types)
    return Bundle("", manifest, listings, space, Encoder(settings, space, learned), ranker, types=types)


def _fit(learned: Learned, dimensions: int) -> None:
    """Raises ValueError unless the encoder is one for so many dimensions."""
    for name, array, shape in (
        ("ages", learned.ages, (len(learned.ages), dimensions)),
        ("start", learned.start, (dimensions,)),
    ):
        if (
            array.dtype != np.float32
            or array.shape != shape
            or not array.size
            or not np.isfinite(array).all()
        ):
            raise ValueError(
                f"{ENCODER}: `{name}` is not of finite float32 {shape}: {array.dtype} {array.shape}"
            )


def _space(listings: Listings, vectors: Floats, types: Types) -> Space:
    prices = listings.columns.price or [None] * len(listings)
    log_prices = np.fromiter(map(log_price, prices), np.float32, len(listings))
    return Space(listings.row, vectors, log_prices, types.of(listings), listings.columns.market)


def write(
    folder: Path, bundle: Bundle, *, threads: int = 1, on_raise: Callable[[str], None] = lambda line: None
) -> Path:
    """Write an assembled bundle to `folder/<name>`, whole or not at all, and make it `folder/current`; its path.

    `on_raise` is told where the index has to be walked further to find enough. Raises UserError where the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".bundle-", dir=folder) as part:
            name = _write(Path(part), bundle, threads, on_raise)
            path = folder / name
            if not path.exists():
                os.rename(part, path)
                Path(part).mkdir()  # for the context to remove
                path.chmod(0o755)
        point(folder, name)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return path


def check_folder(folder: Path) -> None:
    """Raise UserError where no bundle could be written to the folder, which need not be there yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    try:
        tempfile.TemporaryDirectory(prefix=".bundle-", dir=there).cleanup()
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"the bundle can't be written to {folder}: {error.strerror or error}")


def _write(part: Path, bundle: Bundle, threads: int, on_raise: Callable[[str], None]) -> str:
    """The files of the bundle; its name."""
    (part / VECTORS).write_bytes(safetensors.numpy.save({"vectors": bundle.vectors}))
    (part / LISTINGS).write_bytes(bundle.listings.encode())
    (part / RANKER).write_bytes(bundle.ranker.encode())
    if bundle.types is not NONE:
        (part / TYPES).write_bytes(bundle.types.encode())
    if (learned := bundle.encoder.learned) is not None:
        parts = {"ages": learned.ages, "start": learned.start}
        (part / ENCODER).write_bytes(safetensors.numpy.save(parts))
    index = Index.build(bundle.vectors, bundle.listings, threads=threads)
    index.save(part)
    measured = index.measure(np.random.default_rng(bundle.manifest.training.seed or 0), on_raise)
    files = {path.name: _hash(path) for path in sorted(part.iterdir())}
    manifest = msgspec.structs.replace(bundle.manifest, index=measured, files=files)
    content = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1)
    (part / MANIFEST).write_bytes(content)
    return _name(content)


def point(folder: Path, name: str) -> None:
    """Make the bundle `name` the `current` one of the folder: a link, replaced in one step."""
    link = folder / f".{CURRENT}-{name}"
    link.unlink(missing_ok=True)
    link.symlink_to(name, target_is_directory=True)
    os.replace(link, folder / CURRENT)


def find(path: Path) -> Path:
    """The folder of the bundle at `path`: itself, or what `current` in it points to. Raises UserError where there is none."""
    try:
        for folder in (path, path / CURRENT):
            if (folder / MANIFEST).is_file():
                return folder.resolve()
        there = path.exists()
    except OSError as error:
        raise UserError(f"no bundle: {path} can't be read: {error.strerror or error}") from None
    if path.parts[:1] == ("models:",):
        raise UserError(f"no bundle: {path} is a name in a registry, which is not taken here: give a folder")
    what = "does not exist" if not there else f"has neither {MANIFEST} nor a bundle as `{CURRENT}`"
    raise UserError(f"no bundle: {path} {what}; make one with `insession train` or `insession bundle`")


def load(path: Path) -> Bundle:
    """The bundle at `path`, which is a bundle's folder or a folder of bundles with `current` in it.

    Raises UserError where there is none, or it is broken, or of a version this program does not read.
    """
    folder = find(Path(path))
    content = _read(folder, MANIFEST)
    manifest = _manifest(folder, content)
    name = _name(content)
    if NAME.fullmatch(folder.name) and folder.name != name:
        raise UserError(f"{folder}: the manifest was changed: a bundle is named by its hash, here {name}")
    read = [VECTORS, LISTINGS, RANKER, *(name for name in (TYPES, ENCODER) if name in manifest.files)]
    files = {name: _check(folder, name, manifest) for name in read}
    try:
        vectors = safetensors.numpy.load(files[VECTORS])["vectors"]
        listings = listings_.decode(files[LISTINGS])
        ranker = ranker_.decode(files[RANKER])
        types = types_.decode(files[TYPES]) if TYPES in files else NONE
        if vectors.dtype != np.float32 or vectors.shape != (len(listings), manifest.dimensions):
            raise ValueError(f"{len(listings)} listings, but vectors of {vectors.dtype} {vectors.shape}")
        space = _space(listings, vectors, types)
        learned = None
        if ENCODER in files:
            learned = Learned(**safetensors.numpy.load(files[ENCODER]))
            _fit(learned, manifest.dimensions)
    except (
        msgspec.MsgspecError,
        SafetensorError,
        UnicodeDecodeError,
        ValueError,
        KeyError,
        TypeError,
    ) as error:
        raise UserError(f"{folder}: {error}") from None
    encoder = Encoder(manifest.encoder, space, learned)
    return Bundle(name, manifest, listings, space, encoder, ranker, folder, types)


def read_manifest(path: Path) -> Manifest:
    """The manifest of the bundle at `path`, alone. Raises UserError as `load` does."""
    folder = find(path)
    return _manifest(folder, _read(folder, MANIFEST))


def _manifest(folder: Path, content: bytes) -> Manifest:
    try:
        version = msgspec.json.decode(content, type=_Version).version
        if version != VERSION:
            raise UserError(f"{folder}: a bundle of version {version}; this program reads {VERSION}")
        return msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / MANIFEST}: not a bundle's manifest: {error}") from None


def _name(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()[:16]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise UserError(f"{folder / name}: {error.strerror or error}") from None


def _check(folder: Path, name: str, manifest: Manifest) -> bytes:
    """The content of a bundle's file. Raises UserError unless its hash is the one in the manifest."""
    content = _read(folder, name)
    if hashlib.sha256(content).hexdigest() != manifest.files.get(name):
        raise UserError(f"{folder / name}: damaged: its hash is not the one in {MANIFEST}")
    return content
