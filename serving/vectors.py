"""Vectors computed again, in the space of a bundle that the worker did not use: beside the records, under the bundle's name.

They are made where records are consumed, never in a request. Each says of which record it is, so that one that was
left behind is not taken for the vector of a later record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from models.bundle import Bundle
from models.sessions import UserEmbedding
from models.states import decode_embedding

PREFIX = b"v"

log = logging.getLogger("insession.vectors")


class Vector(msgspec.Struct, frozen=True, array_like=True):
    """The newest open session's vector, [d], and of which record it is."""

    offset: int
    as_of: int
    vector: tuple[float, ...] | None


_encode = msgspec.json.Encoder().encode


def space(bundle: str) -> bytes:
    """What the keys of a bundle's vectors begin with."""
    return PREFIX + bundle.encode() + b"/"


def recomputed(bundle: Bundle, record: UserEmbedding) -> bytes | None:
    """What to keep of a record so that it has a vector of the bundle; None where it has one, or no session is open."""
    if record.bundle == bundle.name or not record.state.sessions:
        return None
    return _encode(Vector(record.offset, record.as_of, bundle.encode(record.state.sessions[-1])))


def read(bundle: Bundle, value: bytes, unreadable: Callable[[], object] = lambda: None) -> bytes | None:
    """`recomputed` of a record as it stands in the store; None too where it can't be read.

    `unreadable` is called where it is of this version, but no vector can be made of it.
    """
    # As workers write it: most records need no decoding.
    if b'"bundle":"' + bundle.name.encode() + b'"' in value:
        return None
    try:
        return recomputed(bundle, decode_embedding(value))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None  # it can't be answered from either
    except Exception:  # one record is not to stop the following
        log.exception("no vector in the space of %s can be made of a record", bundle.name)
        unreadable()
        return None
