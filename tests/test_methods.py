from __future__ import annotations

import re

import pytest

from insession import contracts
from models.training.methods import METHODS


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_section_with_all_its_settings_and_their_defaults(name: str) -> None:
    page = (contracts.DOCS / "methods.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    section = dict(zip(parts[1::2], parts[2::2], strict=True))[name]
    described = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", section, flags=re.MULTILINE))
    defaults = METHODS[name].fields.items()
    assert described == {
        setting: str(value).lower() if isinstance(value, bool) else str(value) for setting, value in defaults
    }
    assert "**When.**" in section
