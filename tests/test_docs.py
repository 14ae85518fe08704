"""The documents say all there is, and nothing that is not so."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from jsonschema import Draft202012Validator

from insession import contracts
from insession.main import group
from insession.settings import PREFIX, Settings
from models import recording
from models.bundle import Manifest
from models.topics import Topics
from serving import api, openapi
from serving import metrics as sidecar_metrics
from serving.shadow import Shadow
from streams import metrics as worker_metrics
from tests.made import a_bundle

ROOT = contracts.DOCS.parent
PAGES = sorted([*contracts.DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))


def schema(name: str) -> dict[str, Any]:
    """A schema, made from the types."""
    content = contracts.documents()[contracts.DOCS / "schemas" / f"{name}.json"]
    made: dict[str, Any] = json.loads(content)
    return made


def verbs(command: click.Command = group, name: str = "insession") -> Iterator[tuple[str, click.Command]]:
    """Every verb, and every verb of a verb, by its whole name."""
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command)
    for verb in command.list_commands(context):
        found = command.get_command(context, verb)
        assert found is not None
        yield from verbs(found, f"{name} {verb}")


VERBS = dict(verbs())


def example(verb: str) -> list[str]:
    """The lines of the example at the end of the verb's help."""
    command = VERBS.get(verb) or group.get_command(click.Context(group), verb.removeprefix("insession "))
    assert command is not None
    _, says = (command.help or "").split("Example:")
    return [line.strip() for line in says.strip().splitlines()]


def sections(page: str) -> dict[str, str]:
    """The text under each heading of the second rank."""
    text = (contracts.DOCS / page).read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_every_verb_is_described(verb: str) -> None:
    section = sections("commands.md")[verb]
    options = {name for param in VERBS[verb].params if isinstance(param, click.Option) for name in param.opts}
    described = set(
        re.findall(r"(?<![\w-])--[a-z][a-z-]*", "\n".join(re.findall(r"^\| .*$", section, re.MULTILINE)))
    )
    missing = {name for name in options if name.startswith("--")} - described
    assert not missing


@pytest.mark.parametrize("verb", [*VERBS, "insession evaluate"])
def test_every_help_ends_with_an_example_which_the_docs_show(verb: str) -> None:
    lines = example(verb)
    assert lines[-1].startswith(verb), lines
    [shown] = blocks(sections("commands.md")[verb], "")
    assert shown.splitlines() == lines


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_that_is_a_setting_names_its_variable(verb: str) -> None:
    rows = dict(re.findall(r"^\| `(--.*?)` \| (.*) \|$", sections("commands.md")[verb], re.MULTILINE))
    for param in VERBS[verb].params:
        # One that has a default of its own is no setting, as the port of `insession broker`.
        if (
            isinstance(param, click.Option)
            and param.name in Settings.model_fields
            and (param.default is None or param.multiple)
        ):
            named = re.findall(rf"\[({PREFIX}[A-Z_]+)", param.help or "")
            assert named == [f"{PREFIX}{param.name.upper()}"]
            assert f"[`{named[0]}`" in rows[param.opts[0]]


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_has_a_help(verb: str) -> None:
    silent = [
        param.name for param in VERBS[verb].params if isinstance(param, click.Option) and not param.help
    ]
    assert silent == []


def test_every_verb_with_a_section_exists() -> None:
    named = {name for name in sections("commands.md") if name.startswith("insession ")}
    assert named >= VERBS.keys()
    assert all(any(verb.startswith(name) for verb in VERBS) for name in named)


def test_every_setting_is_described_with_its_default() -> None:
    rows = [line for line in sections("commands.md")["Settings"].splitlines() if line.startswith("| `")]
    described = {re.findall("`(.*?)`", row)[0]: row for row in rows}
    assert described.keys() == {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        row = described[f"{PREFIX}{name.upper()}"]
        assert str(field.description) in row
        assert f"`{field.default}`" in row or str(field.default) in ("", "None")


def test_every_topic_has_a_section_and_says_its_settings() -> None:
    topics, found = Topics(), sections("topics.md")
    assert found.keys() == set(topics.all)
    for name, text in found.items():
        for key, value in topics.settings(name, retention_ms=-1).items():
            assert key == "retention.ms" or f"{key}={value}" in text


@pytest.mark.parametrize("topic", [name for name in contracts.SCHEMAS if name in Topics().all])
def test_every_example_of_a_record_is_valid(topic: str) -> None:
    examples = blocks(sections("topics.md")[topic], "json")
    assert examples
    for example in examples:
        record = json.loads(example)
        name = "user-embeddings-checkpoint" if "next_offset" in record else topic
        Draft202012Validator(schema(name)).validate(record)


def test_every_type_of_event_and_every_field_of_a_record_is_described() -> None:
    found = sections("topics.md")
    definitions = schema("clicks")["$defs"]
    for name in definitions:
        kind = definitions[name]["properties"].get("type", {}).get("enum")
        assert kind is None or re.search(rf"^###.*\b{kind[0]}\b", found["clicks"], re.MULTILINE)
    for name, type_ in contracts.SCHEMAS.items():
        text = found.get(name.removesuffix("-checkpoint"), "")
        if text and name != "clicks":
            missing = {field for field in type_.__struct_fields__ if field not in text} - {"version"}
            assert not missing, name


def test_the_example_recording_can_be_read(tmp_path: Path) -> None:
    text = (contracts.DOCS / "recording.md").read_text(encoding="utf-8")
    [example] = blocks(text, "jsonl")
    (tmp_path / "example.jsonl").write_text(example)
    header, records = recording.read(tmp_path / "example.jsonl")
    first, second = records
    assert header.partitions == 4
    assert first.key == second.key == b"ada"
    assert second.value == b"\xff\xfe"
    for type_ in (recording.Header, recording.Line):
        assert all(f"`{field}`" in text for field in type_.__struct_fields__)


def test_the_example_manifest_is_one() -> None:
    text = (contracts.DOCS / "bundle.md").read_text(encoding="utf-8")
    [example] = blocks(text, "json")
    manifest = msgspec.json.decode(example, type=Manifest)
    assert manifest.dimensions == 3
    assert set(json.loads(example)) == set(Manifest.__struct_fields__)


def test_every_route_is_described_with_a_call_and_an_answer_of_its_type() -> None:
    found = sections("http.md")
    for operation in openapi.OPERATIONS:
        text = found[f"{operation.method.upper()} {operation.path}"]
        assert "curl " in text
        if operation.response is not None:
            [answer] = blocks(text, "json")
            msgspec.json.decode(answer, type=operation.response)
        if operation.request is not None:
            [body] = re.findall(r"-d '(.*?)'\n", text, re.DOTALL)
            msgspec.json.decode(body, type=operation.request)
    rank = found["POST /v1/rank"]
    assert all(f"`{field}`" in rank for field in api.RankRequest.__struct_fields__)


def test_the_first_ranking_that_is_shown_is_one() -> None:
    [answer] = re.findall(r"^```\n(\{\n.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    ranking = msgspec.json.decode(answer, type=api.RankResponse)
    assert [result.listing_id for result in ranking.results[:2]] == ["lisbon-024", "lisbon-070"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere_and_every_test_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        assert link.startswith("https://") or (page.parent / target).exists(), link
        if anchor and (target.endswith(".md") or not target):
            there = (page.parent / target if target else page).read_text(encoding="utf-8")
            headings = [
                re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-")
                for h in re.findall(r"^#+ (.*)$", there, re.MULTILINE)
            ]
            assert anchor in headings, link
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in SOURCES, name
    for path in re.findall(r"`((?:tests|models|streams|serving|insession)/\w+\.py)`", text):
        assert (ROOT / path).exists(), path


def test_every_metric_of_a_worker_is_described() -> None:
    text = (contracts.DOCS / "streams.md").read_text(encoding="utf-8")
    for metric in worker_metrics.Metrics().registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        assert f"`{name}`" in text, name


def test_every_metric_of_a_sidecar_is_described() -> None:
    text = (contracts.DOCS / "http.md").read_text(encoding="utf-8")
    made = sidecar_metrics.Metrics("b")
    Shadow(a_bundle(), 1.0, made)
    for metric in made.registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        assert f"`{name}`" in text, name


def test_every_setting_of_a_worker_is_described() -> None:
    text = sections("streams.md")["Settings"]
    options = {
        name for param in VERBS["insession worker"].params for name in param.opts if name.startswith("--")
    }
    assert {name for name in options if f"`{name}`" not in text} == set()
