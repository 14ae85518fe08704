"""The committed contracts are what the types say now, and the laws and the docs hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import jsonschema
import msgspec
import pytest

from insession.contracts import DOCS, documents
from insession.main import VERBS, Verbs, group
from insession.settings import PREFIX, Settings
from models.events import Click, Result, Search, encode
from models.sessions import State, UserEmbedding
from serving import app

ROOT = Path(__file__).parent.parent


def test_the_committed_contracts_are_what_the_types_say() -> None:
    made = documents()
    there = {*(DOCS / "schemas").glob("*.json"), DOCS / "openapi.json"}
    assert there == set(made)
    stale = [path.name for path, content in made.items() if path.read_bytes() != content]
    assert not stale, "write them with `make contracts`"


@pytest.mark.parametrize(
    ("topic", "value"),
    [
        ("clicks", encode(Click(event_id="e", user_id="u", timestamp=1, listing_id="l"))),
        (
            "clicks",
            encode(
                Search(event_id="s", user_id="u", timestamp=1, results=(Result(listing_id="l", position=1),))
            ),
        ),
        (
            "user-embeddings",
            msgspec.json.encode(
                UserEmbedding(
                    user_id="u",
                    vector=(0.6, 0.8),
                    bundle="b",
                    as_of=1,
                    partition=0,
                    offset=0,
                    state=State(last=1),
                )
            ),
        ),
    ],
)
def test_what_is_written_is_valid_by_its_schema(topic: str, value: bytes) -> None:
    schema = msgspec.json.decode((DOCS / "schemas" / f"{topic}.json").read_bytes())
    jsonschema.validate(msgspec.json.decode(value), schema, cls=jsonschema.Draft202012Validator)


def test_a_wrong_event_is_not_valid_by_the_schema() -> None:
    schema = msgspec.json.decode((DOCS / "schemas" / "clicks.json").read_bytes())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"type": "click", "event_id": "e"}, schema, cls=jsonschema.Draft202012Validator)


def commands() -> list[tuple[str, click.Command]]:
    assert isinstance(group, Verbs)
    found = []
    for verb in VERBS:
        command = group.get_command(click.Context(group), verb)
        assert command is not None
        found.append((verb, command))
        if isinstance(command, click.Group):
            found += [(f"{verb} {name}", sub) for name, sub in command.commands.items()]
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: str(value))
def test_each_command_is_documented_with_each_option_and_an_example(
    name: str, command: click.Command
) -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    section = page.split(f"\n## insession {name}\n")
    assert len(section) == 2, f"docs/commands.md has no section `insession {name}`"
    text = section[1].split("\n## ")[0]
    for option in command.params:
        if isinstance(option, click.Option):
            assert f"`{option.opts[-1]}" in text, f"{option.opts[-1]} of {name} is not in docs/commands.md"
    assert "Example:" in (command.help or "")


def test_each_setting_is_documented() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    for name in Settings.model_fields:
        assert f"`{PREFIX}{name.upper()}`" in page


def test_each_route_is_documented() -> None:
    page = (ROOT / "docs" / "http.md").read_text()
    openapi = msgspec.json.decode((DOCS / "openapi.json").read_bytes())
    assert openapi["paths"]
    for path in openapi["paths"]:
        assert f"{path}`" in page
    assert app.__doc__


def test_the_laws_of_the_house_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()


def test_models_read_no_clock_and_no_environment() -> None:
    reads = ("time.time", "time.monotonic", "perf_counter", "datetime.now", "os.environ", "os.getenv")
    found = [
        f"{path.relative_to(ROOT)}: {read}"
        for path in (ROOT / "models").rglob("*.py")
        for read in reads
        if read in path.read_text()
    ]
    assert not found
