"""A worker with a guarantee switched off, or that meets a failure once: `python -m tests.faulty_worker WHAT worker ...`.

The first show that the torture notices, the others what becomes of a worker, and of what it published, when it fails.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException

from insession.main import main
from models import sessions
from streams import consumer, pipeline, worker


def nothing() -> None:
    """Leave everything on."""


def fencing() -> None:
    """Each holder of a partition writes under a name of its own, so a zombie goes on writing."""
    worker.transactional_id = lambda *names: f"{'-'.join(map(str, names))}-{secrets.token_hex(4)}"


def deduplication() -> None:
    """An event that comes again counts again."""
    apply = sessions.apply

    def applied(
        state: sessions.State, event: Any, windows: sessions.Windows = sessions.WINDOWS
    ) -> sessions.State:
        again = any(event.event_id == kept.event_id for session in state.sessions for kept in session.events)
        if again:
            event = msgspec.structs.replace(event, event_id=f"{event.event_id}-{secrets.token_hex(4)}")
        return apply(state, event, windows)

    sessions.apply = applied


def checkpoint() -> None:
    """Go on from the offsets that Faust's group committed, a few seconds old, and not from the checkpoint."""

    async def perform_seek(self: consumer.Consumer) -> None:
        await consumer.driver.Consumer.perform_seek(self)

    consumer.Consumer.perform_seek = perform_seek
    recover = pipeline.recover

    def recovered(*arguments: Any, **options: Any) -> Any:
        store, standing = recover(*arguments, **options)
        assert standing.checkpoint is not None
        forgotten = msgspec.structs.replace(standing.checkpoint, next_offset=0)
        return store, msgspec.structs.replace(standing, checkpoint=forgotten)

    pipeline.recover = recovered
    # With it goes the check that a batch is written onto the checkpoint it started from.
    read_standing = pipeline.read_standing
    pipeline.read_standing = lambda store: msgspec.structs.replace(read_standing(store), checkpoint=None)


def store_after_commit() -> None:
    """The store is written before the transaction commits; some lives end between the two, where a session closes."""
    publish = pipeline.Pipeline._publish
    state = Path(sys.argv[sys.argv.index("--state") + 1])
    deaths = [state.with_suffix(f".death-{number}") for number in range(5)]
    batches = 0

    def transact(self: Any, changes: Any, standing: Any, onto: Any) -> None:
        nonlocal batches
        batches += 1
        self._keep(changes, standing, onto)
        left = [death for death in deaths if not death.exists()]
        if batches > 40 and changes.sessions and left:
            left[0].touch()
            os.kill(os.getpid(), signal.SIGKILL)
        publish(self, changes, standing.checkpoint)

    pipeline.Pipeline._transact = transact  # type: ignore[method-assign]


def once(name: str) -> bool:
    """Whether this happens to this worker's state folder for the first time."""
    marker = Path(sys.argv[sys.argv.index("--state") + 1]).with_suffix(f".{name}")
    if marker.exists():
        return False
    marker.touch()
    return True


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def commit_outcome_unknown() -> None:
    """The third commit takes effect, but the worker is told that it timed out."""
    commits = 0

    class Timing(pipeline.Producer):  # type: ignore[misc]
        def commit_transaction(self, *arguments: Any) -> None:
            nonlocal commits
            super().commit_transaction(*arguments)
            commits += 1
            if commits == 3 and once("unknown"):
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "the outcome is not known"))

    pipeline.Producer = Timing  # type: ignore[misc]


def dies_between_commit_and_store() -> None:
    keep = pipeline.Pipeline._keep
    batches = 0

    def kept(self: Any, changes: Any, standing: Any, onto: Any) -> None:
        nonlocal batches
        batches += 1
        if batches == 3 and once("between"):
            die()
        keep(self, changes, standing, onto)

    pipeline.Pipeline._keep = kept  # type: ignore[method-assign]


def dies_with_an_open_transaction() -> None:
    """All of the third batch is on the broker, and nothing says whether it counts."""
    commits = 0

    class Dying(pipeline.Producer):  # type: ignore[misc]
        def commit_transaction(self, *arguments: Any) -> None:
            nonlocal commits
            commits += 1
            if commits == 3 and once("open"):
                self.flush(10)
                die()
            super().commit_transaction(*arguments)

    pipeline.Producer = Dying  # type: ignore[misc]


def commits_slowly(seconds: float) -> None:
    """One commit takes so long that the group changes meanwhile."""
    commits = 0

    class Slow(pipeline.Producer):  # type: ignore[misc]
        def commit_transaction(self, *arguments: Any) -> None:
            nonlocal commits
            commits += 1
            if commits == 3 and once("slow"):
                self.flush(10)
                print("committing slowly", file=sys.stderr, flush=True)
                time.sleep(seconds)
            super().commit_transaction(*arguments)

    pipeline.Producer = Slow  # type: ignore[misc]


FAULTS = {
    "nothing": nothing,
    "fencing": fencing,
    "deduplication": deduplication,
    "checkpoint": checkpoint,
    "store-after-commit": store_after_commit,
    "commit-outcome-unknown": commit_outcome_unknown,
    "dies-between-commit-and-store": dies_between_commit_and_store,
    "dies-with-an-open-transaction": dies_with_an_open_transaction,
    "commits-slowly": lambda: commits_slowly(2.5),
    "commits-too-slowly": lambda: commits_slowly(25.0),
}

if __name__ == "__main__":
    FAULTS[sys.argv.pop(1)]()
    main()
