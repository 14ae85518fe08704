"""A recording run without a broker, with its progress shown."""

from __future__ import annotations

import gc
from pathlib import Path

from insession.progress import Progress
from models import offline, recording
from models.bundle import Bundle
from models.offline import Result


def run(path: Path, bundle: Bundle, *, keep: bool) -> Result:
    """What the recording at `path` gives; `keep` says that the outputs are wanted, and not only their numbers."""
    header, records = recording.read(path)
    # Nothing here makes cycles, and the collector would walk all the states again and again.
    gc.freeze()
    gc.disable()
    try:
        with Progress(f"running {path.name}", unit="events") as progress:
            placed = offline.placed(records, header.partitions)
            return offline.run(placed, bundle, keep=keep, on_progress=progress.update)
    finally:
        gc.enable()
        gc.unfreeze()
