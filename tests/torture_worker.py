"""A worker with one of its guarantees switched off, to see that the torture notices: `python -m tests.torture_worker WHAT worker ...`."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

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


SWITCHES = {
    "nothing": nothing,
    "fencing": fencing,
    "deduplication": deduplication,
    "checkpoint": checkpoint,
    "store-after-commit": store_after_commit,
}

if __name__ == "__main__":
    SWITCHES[sys.argv.pop(1)]()
    main()
