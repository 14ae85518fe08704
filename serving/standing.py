"""What the sidecar's store stands for: of which cluster and topics it is, and how far each partition is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from models.states import Checkpoint
from models.store import Store, following

_STANDING = b"m"
_PLACES = b"o"

Partition = tuple[str, int]
"""A topic's name and the partition's number."""
Changes = dict[bytes, bytes | None]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the store stands for."""

    cluster: str
    topics: dict[str, str]
    """The topics' ids, by name."""
    seen: int = 0
    """When everything on the topics was last known to be read, ms; 0 before the first time."""
    partitions: int
    """How many `user-embeddings` has,"""
    held: list[int] | None
    """and which of them are in the store; None: all."""
    users: int = 0
    vectors: frozenset[str] = frozenset()
    """The bundles in whose spaces every user is known to have a vector."""
    version: Literal[3] = 3


class Place(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a partition of a topic stands in the store."""

    position: int = 0
    checkpoint: Checkpoint | None = None
    """On `user-embeddings`: what of `clicks` is in it."""


_standings = msgspec.json.Decoder(Standing)
_places = msgspec.json.Decoder(Place)


def read(store: Store) -> tuple[Standing | None, dict[Partition, Place]]:
    """What a store stands for, and its places; nothing where it is new or of another version. Raises StoreError."""
    value = store.get(_STANDING)
    try:
        standing = _standings.decode(value) if value is not None else None
        places = {
            _partition(key): _places.decode(place) for key, place in store.items(_PLACES, following(_PLACES))
        }
    except msgspec.MsgspecError:
        return None, {}
    return standing, places


def stands(standing: Standing | None) -> Changes:
    """What to write so that a store stands for this."""
    return {_STANDING: msgspec.json.encode(standing) if standing is not None else None}


def placed(places: Mapping[Partition, Place]) -> Changes:
    """What to write so that these partitions are so far in a store."""
    return {
        _PLACES + f"{topic}/{number}".encode(): msgspec.json.encode(place)
        for (topic, number), place in places.items()
    }


def _partition(key: bytes) -> Partition:
    topic, _, number = key[1:].decode().rpartition("/")
    return topic, int(number)
