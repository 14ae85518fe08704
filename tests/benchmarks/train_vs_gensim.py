"""train_vs_gensim: clicks/s of skip-gram beside gensim's Word2Vec, in turns, with what the vectors of both are worth.

Two days of the news portal Globo.com to train on, the next day's first visits to test on; and the example of Serenade.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from models import listings
from models.encoder import Mean
from models.listings import Listing
from models.training import skip_gram
from models.training.corpus import Collector, Corpus
from models.training.run import Run
from models.training.skip_gram import SkipGram
from tests.benchmarks.result import Result, compared

ROUNDS, THREADS, PASSES = 3, 2, 10
SETTINGS = SkipGram(dimensions=32, epochs=PASSES, window=5, negatives=5)
DAY = 86_400_000
FIRST_DAY = 1_507_420_800_000
"""8 October 2017, ms."""
TESTED = 4_000
TOP = 20

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """Visits to train on, and visits whose every next click is to be found; listings are rows from 0 on, those of no
    training visit -1."""

    name: str
    train: Corpus
    test: list[Ints]


def run() -> list[Result]:
    folder = os.environ.get("INSESSION_DATA")
    if not folder:
        print("train_vs_gensim: INSESSION_DATA is not set: no recorded data to train on", file=sys.stderr)
        return []
    try:
        import gensim  # noqa: F401
    except ImportError:
        print(
            "train_vs_gensim: no gensim; it comes with `make install`, or pip install gensim", file=sys.stderr
        )
        return []
    large, small = globo(Path(folder)), serenade(Path(folder))
    rates: dict[str, list[float]] = {"ours": [], "gensim": []}
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for seed in range(1, ROUNDS + 1):
        for name, learn in (("ours", ours), ("gensim", gensims)):
            vectors, seconds = learn(large.train, seed)
            rates[name].append(len(large.train.tokens) * PASSES / seconds)
            found.setdefault((name, large.name), []).append(quality(vectors, large.test))
            found.setdefault((name, small.name), []).append(quality(learn(small.train, seed)[0], small.test))
    worth = "; ".join(
        f"{task} " + ", ".join(f"{name} {_means(found[name, task])}" for name in rates)
        for task in (large.name, small.name)
    )
    each = ", ".join(f"{name} {[round(rate / 1e6, 2) for rate in rates[name]]}" for name in rates)
    note = (
        f"{len(large.train.tokens):,} clicks, {PASSES} passes, {THREADS} threads; HR@20/MRR@20: {worth};"
        f" M clicks/s by round: {each}"
    )
    middle = {name: statistics.median(values) for name, values in rates.items()}
    return [
        compared(
            "train_vs_gensim", middle["ours"], "clicks/s", "gensim's Word2Vec", middle["gensim"], note=note
        )
    ]


def ours(corpus: Corpus, seed: int) -> tuple[Floats, float]:
    """Vectors, and the seconds of all that it took."""
    started = time.perf_counter()
    vectors = skip_gram.train(corpus, SETTINGS, Run(np.random.default_rng(seed), threads=THREADS))
    return vectors, time.perf_counter() - started


def gensims(corpus: Corpus, seed: int) -> tuple[Floats, float]:
    """Vectors, and the seconds of the training alone: not of turning rows into words, nor of counting these."""
    from gensim.models import Word2Vec

    words = np.array([str(row) for row in range(len(corpus.listings))], dtype=object)
    sentences = [part.tolist() for part in np.split(words[corpus.tokens], corpus.starts[1:-1])]
    model = Word2Vec(
        vector_size=SETTINGS.dimensions,
        window=SETTINGS.window,
        negative=SETTINGS.negatives,
        sg=1,
        min_count=1,
        sample=0,
        workers=THREADS,
        seed=seed,
    )
    model.build_vocab(sentences)
    started = time.perf_counter()
    model.train(sentences, total_examples=len(sentences), epochs=PASSES)
    seconds = time.perf_counter() - started
    vectors = np.zeros((len(corpus.listings), SETTINGS.dimensions), np.float32)
    vectors[[int(word) for word in model.wv.index_to_key]] = model.wv.vectors
    return skip_gram.unit(vectors), seconds


def quality(vectors: Floats, visits: list[Ints]) -> tuple[float, float]:
    """HR@20 and MRR@20 of the next click: by the cosine of its vector with the decayed mean of the visit's vectors."""
    queries, targets = [], []
    for visit in visits:
        query = np.zeros(vectors.shape[1], np.float32)
        for place, row in enumerate(visit.tolist()):
            if row < 0:
                continue
            if place and query.any():
                queries.append(query)
                targets.append(row)
            query = query * np.float32(Mean().decay) + vectors[row]
    hits = ranks = 0.0
    for start in range(0, len(targets), 512):
        scores = np.array(queries[start : start + 512]) @ vectors.T
        wanted = np.array(targets[start : start + 512])
        rank = 1 + (scores > scores[np.arange(len(wanted)), wanted, None]).sum(axis=1)
        hits += float((rank <= TOP).sum())
        ranks += float((1 / rank[rank <= TOP]).sum())
    return hits / len(targets), ranks / len(targets)


def globo(folder: Path) -> Task:
    columns = ["session_id", "click_article_id", "click_timestamp"]
    table = pa.parquet.read_table(folder / "globo" / "clicks.parquet", columns=columns)
    visits, began = _visits(*(table[name].to_numpy() for name in columns))
    first, last, end = np.searchsorted(began, [FIRST_DAY, FIRST_DAY + 2 * DAY, FIRST_DAY + 3 * DAY]).tolist()
    return _task("Globo", visits[first:last], visits[last:end][:TESTED])


def serenade(folder: Path) -> Task:
    with zipfile.ZipFile(folder / "serenade" / "example.zip") as archive:
        read = {
            Path(name).stem: pa.csv.read_csv(
                archive.open(name), parse_options=pa.csv.ParseOptions(delimiter="\t")
            )
            for name in archive.namelist()
            if Path(name).name in ("train.txt", "valid.txt", "test.txt")
        }
    visits = {
        name: _visits(*(table[column].to_numpy() for column in ("SessionId", "ItemId", "Time")))[0]
        for name, table in read.items()
    }
    return _task("Serenade's example", visits["train"], visits["valid"] + visits["test"])


def _visits(session: Ints, item: Ints, times: Ints) -> tuple[list[Ints], Ints]:
    """The items of each visit of two clicks or more, in the order in which the visits began, and when they did."""
    order = np.lexsort((times, session))
    session, item, times = session[order], item[order], times[order]
    starts = np.flatnonzero(np.append(True, session[1:] != session[:-1]))
    lengths = np.diff(np.append(starts, len(session)))
    starts, lengths = starts[lengths > 1], lengths[lengths > 1]
    order = np.argsort(times[starts], kind="stable")
    spans = zip(starts[order].tolist(), lengths[order].tolist(), strict=True)
    return [item[start : start + length] for start, length in spans], times[starts[order]]


def _task(name: str, train: list[Ints], test: list[Ints]) -> Task:
    items, tokens = np.unique(np.concatenate(train), return_inverse=True)
    lengths = np.array([len(visit) for visit in train])
    collector = Collector()
    collector.extend(
        tokens,
        np.zeros(len(tokens)),
        np.full(len(tokens), np.nan),
        np.zeros(len(tokens)),
        lengths,
        np.arange(len(train)),
    )
    corpus = collector.corpus(listings.collect(Listing(listing_id=str(item)) for item in items.tolist()))
    return Task(name, corpus, [_rows(visit, items) for visit in test])


def _rows(visit: Ints, items: Ints) -> Ints:
    places = np.searchsorted(items, visit).clip(max=len(items) - 1)
    return np.where(items[places] == visit, places, -1)


def _means(found: list[tuple[float, float]]) -> str:
    return "/".join(f"{statistics.mean(values):.3f}" for values in zip(*found, strict=True))
