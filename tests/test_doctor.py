"""What the doctor finds, and that it says what to do once and changes nothing."""

from __future__ import annotations

import importlib.metadata
import secrets
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import codec
from click.testing import CliRunner

from insession import doctor
from insession.processes import insession
from models import bundle
from models.topics import Topics
from streams import topics
from streams.broker import Broker, free_port
from tests.made import a_bundle

NOWHERE = "127.0.0.1:1"


def findings(*arguments: object) -> dict[str, dict[str, Any]]:
    result = CliRunner().invoke(doctor.command, ["--json", *map(str, arguments)])
    said = msgspec.json.decode(result.stdout, type=list[dict[str, Any]])
    assert result.exit_code == (0 if all(finding["ok"] for finding in said) else 1)
    for finding in said:
        assert finding["found"]
        assert bool(finding["todo"]) is not finding["ok"], finding
    return {finding["what"]: finding for finding in said}


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No broker is looked for."""
    monkeypatch.setattr(doctor, "_broker", lambda settings: [])


def test_all_is_well_beside_a_sidecar_that_runs(embedded: Broker, tmp_path: Path) -> None:
    bundle.write(tmp_path / "bundles", a_bundle(10))
    prefix = f"test-{secrets.token_hex(4)}-"
    flags = ("--bootstrap", embedded.bootstrap, "--topic-prefix", prefix)
    missing = findings(*flags)[f"topic {prefix}clicks"]
    assert missing["found"] == "is missing"
    assert missing["todo"] == f"make it with `insession topics --topic-prefix {prefix}`"
    topics.ensure({"bootstrap.servers": embedded.bootstrap}, Topics(prefix))
    flags += ("--bundle", str(tmp_path / "bundles"), "--state", str(tmp_path / "state"))
    flags += ("--port", str(free_port()))
    with insession("serve", *flags, ready="serving on ", log=tmp_path / "log"):
        found = findings(*flags)
    assert all(finding["ok"] for finding in found.values()), found
    assert found["torch"]["found"] == importlib.metadata.version("torch")
    assert found["pyarrow"]["found"] == importlib.metadata.version("pyarrow")
    assert found["compression"]["found"] == "reads lz4, snappy, zstd"


def test_what_is_missing_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "SECONDS", 0.5)
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = findings(
            "--bootstrap", NOWHERE, "--bundle", tmp_path / "b", "--state", tmp_path / "file" / "x", "--port", port
        )  # fmt: skip
    assert found["broker"]["found"].startswith(f"no Kafka broker answers at {NOWHERE}")
    assert found["broker"]["todo"].startswith("start one with `insession broker`")
    assert found["bundle"]["found"] == f"no bundle: {tmp_path / 'b'} does not exist"
    assert found["bundle"]["todo"] == "make one with `insession train` or `insession bundle`"
    assert found[f"port {port}"]["todo"] == "choose another with --port (0: a free one)"
    assert found["state folder"]["found"] == f"{tmp_path / 'file'} is not a folder"


@pytest.mark.usefixtures("nobody")
def test_it_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert findings("--port", "0")["state folder"]["ok"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nobody")
def test_versions_that_are_not_what_is_required_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    right = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("rocksdict", "pyarrow"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.1" if name == "numpy" else right(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(codec, "has_zstd", lambda: False)
    found = findings("--port", "0")
    assert found["numpy"]["todo"] == "install with `pip install 'numpy>=2'`"
    assert found["rocksdict"]["found"] == "not installed"
    assert not found["rocksdict"]["ok"]
    assert found["pyarrow"]["ok"]
    assert found["compression"]["found"] == "can't read zstd"
