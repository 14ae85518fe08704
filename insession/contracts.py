"""The contracts as files, made from the types: `python -m insession.contracts` writes them into docs/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from serving import openapi

DOCS = Path(__file__).parent.parent / "docs"


def documents() -> dict[str, Any]:
    """Each document by its path in docs/."""
    return {"openapi.json": openapi.document()}


def text(document: Any) -> str:
    """A document as it stands in its file."""
    return msgspec.json.format(msgspec.json.encode(document, order="deterministic"), indent=2).decode() + "\n"


def main() -> None:
    """Write them all."""
    for name, document in documents().items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(document), encoding="utf-8")


if __name__ == "__main__":
    main()
