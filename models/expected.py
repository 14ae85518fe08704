"""What a run over a recording leaves on the output topics, as lines to keep in a file and to compare.

    {"format":"insession-expected","version":1,"bundle":"427f84a8f349871c","recording":"877b7525..."}
    {"topic":"sessions","partition":1,"key":"ada","value":{"user_id":"ada","first":1795485968337,...}}

Of compacted topics the last record of each key stands, of the others every record, by partition and in an order
that no run and no batch changes. Topics are named without the prefix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import msgspec

from models import lines
from models.dead_letters import cut
from models.errors import UserError
from models.offline import Outputs
from models.topics import Topics

VERSION = 1
TOLERANCE = 1e-5
"""Vectors computed on another machine may differ so much."""

Format = Literal["insession-expected"]
EMBEDDINGS, HISTORIES, SESSIONS, DEAD = TOPICS = Topics().outputs


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a file: of which bundle and which recording this is the result."""

    format: Format = "insession-expected"
    version: int = VERSION
    bundle: str
    recording: str
    """Its fingerprint, see models.offline."""


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record of an output topic. A dead letter's value is text, or stands as `value_base64` where it is no UTF-8."""

    topic: str
    partition: int
    key: str | None = None
    key_base64: bytes | msgspec.UnsetType = msgspec.UNSET
    headers: dict[str, str] = {}
    value: msgspec.Raw
    """JSON; null where it stands as base64."""
    value_base64: bytes | msgspec.UnsetType = msgspec.UNSET


Place = tuple[int, int, str, int]
"""By what lines are ordered and found: topic, partition, key, and a session's `first` or a dead letter's offset."""
Records = Iterable[tuple[Place, bytes]]
"""Lines, each with its place."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A record that is not as expected: it is missing, was not expected, or differs in a field."""

    topic: str
    partition: int
    key: str
    what: Literal["missing", "not expected", "differs"]
    field: str
    """Where it differs, such as `state.sessions[0][1][2]`."""
    expected: str
    """In JSON; empty where nothing was."""
    found: str


@dataclass(slots=True)
class Comparison:
    """What came of comparing two results."""

    identical: int = 0
    close: int = 0
    """Records that are equal but for the last digits of a vector, or the wording of a dead letter's detail."""
    first: Difference | None = None
    different: Counter[str] = field(default_factory=Counter)
    """By topic."""

    @property
    def equal(self) -> bool:
        return not self.different

    @property
    def records(self) -> int:
        return self.identical + self.close + self.different.total()


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


class _First(msgspec.Struct):
    first: int = 0


_first = msgspec.json.Decoder(_First).decode


def line(
    topic: str,
    partition: int,
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, str | bytes | None]] = (),
) -> tuple[Place, bytes]:
    """A record's line, and its place among the others. `topic` is one of TOPICS."""
    texts = {
        name: fact.decode(errors="replace") if isinstance(fact, bytes) else str(fact)
        for name, fact in headers
    }
    key_text, key_base64 = _text(key)
    raw = msgspec.Raw(b"null")
    value_base64: bytes | msgspec.UnsetType = msgspec.UNSET
    if value is not None and topic != DEAD and _is_json(value):
        raw = msgspec.Raw(value)
    elif value is not None:
        text, value_base64 = _text(value)
        raw = msgspec.Raw(_encode(text))
    encoded = _encode(
        Line(
            topic=topic,
            partition=partition,
            key=key_text,
            key_base64=key_base64,
            headers=texts,
            value=raw,
            value_base64=value_base64,
        )
    )
    return _place(topic, partition, key_text or repr(key_base64), texts, bytes(raw)), encoded


def _text(data: bytes | None) -> tuple[str | None, bytes | msgspec.UnsetType]:
    try:
        return (None if data is None else data.decode()), msgspec.UNSET
    except UnicodeDecodeError:
        return None, data or b""


def _is_json(value: bytes) -> bool:
    try:
        msgspec.json.decode(value, type=msgspec.Raw)
        value.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _place(topic: str, partition: int, key: str, headers: dict[str, str], value: bytes) -> Place:
    number = 0
    if topic == SESSIONS:
        try:
            number = _first(value).first
        except msgspec.MsgspecError:
            number = -1  # Whoever wrote this, it is none of ours.
    elif topic == DEAD and headers.get("offset", "").isdecimal():
        number = int(headers["offset"])
    return TOPICS.index(topic), partition, key, number


def result(outputs: dict[int, Outputs], clicks: str = Topics().clicks) -> Iterator[tuple[Place, bytes]]:
    """The lines of what a run kept, in no order. `clicks` is how the dead letters name their topic."""
    for number, kept in outputs.items():
        for topic, values in ((EMBEDDINGS, kept.embeddings), (HISTORIES, kept.histories)):
            for key, value in values.items():
                if value is not None:
                    yield line(topic, number, key, value)
        for user, session in kept.sessions:
            yield line(SESSIONS, number, user, session)
        for letter in kept.dead:
            yield line(
                DEAD,
                number,
                cut(letter.key),
                cut(letter.value),
                letter.headers(clicks, number),
            )


def write(path: Path, header: Header, records: Records) -> int:
    """Write a file, compressed unless its name ends with `.jsonl`; the number of records. The same records give the same bytes."""
    ordered = sorted(records)
    with lines.Writer(path) as writer:
        writer.write(_encode(header))
        for _, text in ordered:
            writer.write(text)
    return len(ordered)


def read(path: Path) -> tuple[Header, Iterator[tuple[Place, bytes]]]:
    """The header and the lines of a file. Raises UserError, naming file and line, where it is none or is damaged."""
    rest = lines.read(path)
    _, first = next(rest, (1, b""))
    try:
        header = msgspec.json.decode(first, type=Header)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UserError(f"{path}:1: not the first line of an expected result: {error}") from None
    if header.version != VERSION:
        raise UserError(
            f"{path}:1: an expected result of version {header.version}; this program reads {VERSION}"
        )
    return header, _read(path, rest)


def _read(path: Path, rest: Iterator[tuple[int, bytes]]) -> Iterator[tuple[Place, bytes]]:
    for number, text in rest:
        try:
            found = _decode(text)
            key = found.key or repr(found.key_base64)
            place = _place(found.topic, found.partition, key, found.headers, bytes(found.value))
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
            raise UserError(f"{path}:{number}: not a record of an expected result: {error}") from None
        yield place, text


def compare(expected: Records, found: Records) -> Comparison:
    """Both results, record by record: the last of each key where compacted, multisets by partition elsewhere."""
    comparison = Comparison()
    missing: dict[Place, list[bytes]] = {}
    extra: dict[Place, list[bytes]] = {}
    for place, text in expected:
        missing.setdefault(place, []).append(text)
    for place, text in found:
        there = missing.get(place, [])
        if text in there:
            comparison.identical += 1
            there.remove(text)
        else:
            extra.setdefault(place, []).append(text)
    for place in sorted(missing.keys() | extra.keys()):
        for one, other in zip_longest(sorted(missing.get(place, [])), sorted(extra.get(place, []))):
            difference = _difference(one, other)
            if difference is None:
                comparison.close += 1
                continue
            comparison.first = comparison.first or difference
            comparison.different[difference.topic] += 1
    return comparison


def _difference(one: bytes | None, other: bytes | None) -> Difference | None:
    """How two records of one place differ; None where only as records of two machines may."""
    at = _decode(one or other or b"")
    key = at.key if at.key is not None else repr(at.key_base64 or None)
    if one is None or other is None:
        what: Literal["missing", "not expected"] = "missing" if other is None else "not expected"
        return Difference(at.topic, at.partition, key, what, "", _shown(one), _shown(other))
    expected, found = msgspec.json.decode(one), msgspec.json.decode(other)
    for record in (expected, found):
        record.get("headers", {}).pop("detail", None)
    if at.topic == EMBEDDINGS:
        values = expected.get("value"), found.get("value")
        if all(isinstance(value, dict) and value.get("vector") is None for value in values):
            # Where there is no vector it does not matter of which bundle it is not.
            values[1]["bundle"] = values[0].get("bundle")
        expected_vector, found_vector = _vector(expected), _vector(found)
        if expected_vector and found_vector and len(expected_vector) == len(found_vector):
            for mine, (index, yours) in zip(expected_vector, enumerate(found_vector), strict=True):
                if abs(mine - yours) <= TOLERANCE:
                    found_vector[index] = mine
    differs = _first_difference(expected, found, "")
    if differs is None:
        return None
    field, mine, yours = differs
    return Difference(
        at.topic, at.partition, key, "differs", field.removeprefix("value."), _json(mine), _json(yours)
    )


def _vector(record: Any) -> list[float] | None:
    value = record.get("value")
    vector = value.get("vector") if isinstance(value, dict) else None
    numbers = isinstance(vector, list) and all(isinstance(number, int | float) for number in vector)
    return vector if numbers else None


class _Absent:
    pass


def _first_difference(one: Any, other: Any, path: str) -> tuple[str, Any, Any] | None:
    """The first place where two JSON documents differ, and what stands there in each."""
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = [
            (f"{path}.{key}" if path else key, one.get(key, _Absent), other.get(key, _Absent))
            for key in (*one, *(key for key in other if key not in one))
        ]
    elif isinstance(one, list) and isinstance(other, list):
        pairs = [
            (f"{path}[{index}]", mine, yours)
            for index, (mine, yours) in enumerate(zip_longest(one, other, fillvalue=_Absent))
        ]
    else:
        return None if type(one) is type(other) and one == other else (path, one, other)
    return next((found for pair in pairs if (found := _first_difference(pair[1], pair[2], pair[0]))), None)


def _json(value: Any) -> str:
    return "" if value is _Absent else _encode(value).decode()


def _shown(text: bytes | None) -> str:
    """A whole record as it is shown: what is not named beside it already."""
    if text is None:
        return ""
    record = msgspec.json.decode(text)
    return _json({name: record[name] for name in ("headers", "value", "value_base64") if name in record})
