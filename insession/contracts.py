"""The contracts as documents, from the types: `python -m insession.contracts` writes docs/schemas and docs/openapi.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from models import expected
from models.bundle import Manifest
from models.events import Event
from models.history import ClosedSession, History
from models.listings import Listing
from models.recording import Header, Line
from models.sessions import UserEmbedding
from models.states import Checkpoint
from serving import openapi

DOCS = Path(__file__).parent.parent / "docs"
SCHEMAS: dict[str, Any] = {
    "clicks": Event,
    "listings": Listing,
    "user-embeddings": UserEmbedding,
    "user-embeddings-checkpoint": Checkpoint,
    "user-histories": History,
    "sessions": ClosedSession,
    "recording-header": Header,
    "recording-line": Line,
    "expected-header": expected.Header,
    "expected-line": expected.Line,
    "bundle-manifest": Manifest,
}
"""By the name of the file: the value of each topic, and the heads of what is on disk."""


def documents() -> dict[Path, bytes]:
    """Each document's path and bytes."""
    made = {
        DOCS / "schemas" / f"{name}.json": _json(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(type_)}
        )
        for name, type_ in SCHEMAS.items()
    }
    made[DOCS / "openapi.json"] = _json(openapi.document())
    return made


def _json(document: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=2) + b"\n"


def main() -> None:
    """Write them all, and remove the schemas of what is no longer there."""
    written = documents()
    for path, content in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for path in (DOCS / "schemas").glob("*.json"):
        if path not in written:
            path.unlink()


if __name__ == "__main__":
    main()
