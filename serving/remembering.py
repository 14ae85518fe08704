"""Users are brought to mind before they are asked for."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from models.states import history_key, user_key
from models.store import Store
from serving.closed import closed_key
from serving.spaces import SLICE
from serving.states import States, Unreadable

log = logging.getLogger("insession.follower")


def remember(store: Store, states: States, bundle: str) -> Iterator[None]:
    """Put the users of the store into memory, with vectors of the bundle, as far as there is room; some at a time.

    For the thread that writes the store: of what it reads here nothing is new by the time it is put.
    """
    for some in store.slices(user_key(b""), SLICE):
        if states.memory.full:
            break
        users = [key[1:] for key, _ in some]
        histories = store.get_many([history_key(user) for user in users])
        left = store.get_many([closed_key(user) for user in users])
        for user, (_, value), history, kept in zip(users, some, histories, left, strict=True):
            with contextlib.suppress(Unreadable):
                states.remember(user, bundle, value, history, kept)
        yield
    log.info("in memory: %d users, %d MB", len(states.memory), states.memory.size >> 20)
