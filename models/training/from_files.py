"""A bundle of any files that can be imported, by the very training that a recording gets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from models.bundle import Bundle
from models.datasets import formats, importing
from models.recording import Header, Writer
from models.training import pipeline
from models.training.pipeline import Progress


def train(
    paths: Sequence[str],
    *,
    until: int | None = None,
    seed: int = 1,
    on_progress: Progress = lambda title, done, total, note: None,
) -> Bundle:
    """A bundle, in memory, of what the files say of the time before `until` (ms), with the default settings and ranker:
    its vectors and encoder are fitted to all of it.

    One recording is learned from as it is; what else is given is imported to one, which does not stay. Raises
    UserError as the importers and models.training.pipeline.train do.
    """
    if len(paths) == 1 and formats.detect(paths[0]).name == "recording":
        return pipeline.train(paths[0], until=until, seed=seed, learn_ranker=False, on_progress=on_progress)
    with TemporaryDirectory(prefix="insession-") as folder:
        path = Path(folder) / "training.jsonl.zst"
        records = importing.records(formats.entries(paths), 1, importing.Summary())
        with Writer(path, Header(topic="clicks", partitions=1)) as writer:
            for done, record in enumerate(importing.in_time_order(records, folder)):
                if done % 10_000 == 0:
                    on_progress("importing", done, 0, "")
                writer.write(record)
        return pipeline.train(path, until=until, seed=seed, learn_ranker=False, on_progress=on_progress)
