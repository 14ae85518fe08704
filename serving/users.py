"""What records of users change in the store, once there are users to answer for: besides themselves, what is derived from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

import msgspec

from models.bundle import Bundle
from models.states import decode_embedding, decode_history, history_key, user_key
from models.store import Store
from serving import closed, vectors

T = TypeVar("T")
Changes = dict[bytes, bytes | None]


def changed(
    store: Store,
    users: Mapping[bytes, bytes | None],
    earlier: Mapping[bytes, Sequence[bytes | None]],
    histories: Mapping[bytes, bytes | None],
    bundles: Sequence[Bundle],
    *,
    follows: bool,
    unreadable: Callable[[], object] = lambda: None,
    unreadable_history: Callable[[], object] = lambda: None,
) -> tuple[Changes, int]:
    """What to write, and how many users more there are then.

    `users` are each user's last record of `user-embeddings`, behind the `earlier` ones where several came, `histories`
    the last of `user-histories`.
    Vectors are made in the spaces of `bundles`; sessions that close are kept where this `follows` what is new.
    `unreadable` is called for each vector that can't be made and, as `unreadable_history`, for records that can't be
    read: these are looked at only where this `follows`.
    """
    stored = store.get_many([user_key(user) for user in users])
    before = dict(zip(users, stored, strict=True))
    changes: Changes = {history_key(user): value for user, value in histories.items()}
    more = 0
    for user, value in users.items():
        changes[user_key(user)] = value
        more += (value is not None) - (before[user] is not None)
        for bundle in bundles:
            vector = vectors.read(bundle, value, unreadable) if value is not None else None
            # Of who is forgotten nothing stays; what else a later record leaves behind is not taken for its own.
            if vector is not None or value is None or b'"forgotten"' in value:
                changes[vectors.space(bundle.name) + user] = vector
    if follows:
        changes |= _closed(store, users, earlier, histories, before, unreadable, unreadable_history)
    return changes, more


def _closed(
    store: Store,
    users: Mapping[bytes, bytes | None],
    earlier: Mapping[bytes, Sequence[bytes | None]],
    histories: Mapping[bytes, bytes | None],
    before: Mapping[bytes, bytes | None],
    unreadable: Callable[[], object],
    unreadable_history: Callable[[], object],
) -> Changes:
    names = [*users, *(user for user in histories if user not in users)]
    changes: Changes = {}
    for user, standing in zip(
        names, store.get_many([closed.closed_key(user) for user in names]), strict=True
    ):
        try:
            kept = closed.decode(standing)
        except msgspec.MsgspecError:
            kept = ()  # of another version
        if user in users:
            last = (*earlier.get(user, ()), users[user])
            new = [_read(decode_embedding, value, unreadable) for value in last]
            for old, after in pairwise([_read(decode_embedding, before[user]), *new]):
                kept = closed.left(kept, old.state if old else None, after.state if after else None)
        if user in histories:
            kept = closed.unnamed(kept, _read(decode_history, histories[user], unreadable_history))
        elif kept:
            kept = closed.unnamed(kept, _read(decode_history, store.get(history_key(user))))
        value = closed.encode(kept)
        if value != standing:
            changes[closed.closed_key(user)] = value
    return changes


def _read(
    decode: Callable[[bytes], T], value: bytes | None, unreadable: Callable[[], object] = lambda: None
) -> T | None:
    """The record; None where there is none, or, which is counted, it can't be read: a request for the user says so."""
    try:
        return decode(value) if value is not None else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        unreadable()
        return None
