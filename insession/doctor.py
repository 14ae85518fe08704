"""`insession doctor`: what is wrong with this installation and its surroundings, and what to do about it."""

from __future__ import annotations

import http.client
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator

import click
import msgspec
from aiokafka import codec
from packaging.requirements import Requirement

from insession import tracking
from insession.settings import Settings, options
from models import bundle
from models.errors import UserError
from serving.api import Health
from serving.server import listen
from streams import topics

INSTALL = "install with `pip install insession`"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked at. `todo` says what to do where it is not `ok`, and is empty where it is."""

    what: str
    ok: bool
    found: str
    todo: str = ""


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@options("host", "port", "bootstrap", "topic_prefix", "bundle", "mlflow", "state")
def command(settings: Settings, as_json: bool) -> None:
    """Look at versions, broker, topics, bundle and ports, and say what to do. Exits with 1 where something is wrong.

    It changes nothing.

    \b
    Example:
      insession import marketplace --visits 300 --out sim.jsonl.zst
      insession train sim.jsonl.zst --listings sim.listings.jsonl --out bundles
      insession topics
      insession doctor --bundle bundles --state .insession
    """
    findings = [*_versions(), _compression(), *_broker(settings), _bundle(settings), _port(settings)]
    findings.append(_state(settings))
    if as_json:
        click.echo(msgspec.json.encode(findings))
    else:
        for finding in findings:
            click.echo(f"{'ok   ' if finding.ok else 'WRONG'}  {finding.what}: {finding.found}")
            if finding.todo:
                click.echo(f"       {finding.todo}")
    sys.exit(0 if all(finding.ok for finding in findings) else 1)


def _versions() -> Iterator[Finding]:
    """Python and what is installed of what we require, against the versions that we require."""
    version = platform.python_version()
    new = sys.version_info >= (3, 11)
    yield Finding(what="Python", ok=new, found=version, todo="" if new else "install Python 3.11 or later")
    try:
        required = map(Requirement, importlib.metadata.requires("insession") or [])
    except importlib.metadata.PackageNotFoundError:
        yield Finding(what="insession", ok=False, found="not installed", todo=INSTALL)
        return
    for requirement in required:
        marker = requirement.marker
        needed = marker is None or marker.evaluate({"extra": ""})
        if needed or (marker is not None and marker.evaluate({"extra": "train"})):
            yield _version(requirement, needed)


def _version(requirement: Requirement, needed: bool) -> Finding:
    name, ranges = requirement.name, requirement.specifier
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if needed:
            return Finding(what=name, ok=False, found="not installed", todo=INSTALL)
        return Finding(what=name, ok=True, found="not installed; only training and importing need it")
    if ranges.contains(found, prereleases=True):
        return Finding(what=name, ok=True, found=found)
    return Finding(what=name, ok=False, found=found, todo=f"install with `pip install '{name}{ranges}'`")


def _compression() -> Finding:
    """Whether a worker can read what producers may have compressed."""
    can = {"lz4": codec.has_lz4(), "snappy": codec.has_snappy(), "zstd": codec.has_zstd()}
    missing = [name for name, there in can.items() if not there]
    return Finding(
        what="compression",
        ok=not missing,
        found=f"can't read {', '.join(missing)}" if missing else f"reads {', '.join(can)}",
        todo="install with `pip install cramjam`" if missing else "",
    )


def _broker(settings: Settings) -> Iterator[Finding]:
    try:
        cluster = topics.cluster_id(settings.client)
        yield Finding(what="broker", ok=True, found=f"cluster {cluster} at {settings.bootstrap}")
        found = topics.describe(settings.client, settings.topics.all)
        for finding in topics.check(found, settings.topics):
            yield Finding(what=f"topic {finding.topic}", ok=finding.ok, found=finding.says, todo=finding.todo)
    except UserError as error:
        yield _wrong("broker", error)


def _bundle(settings: Settings) -> Finding:
    try:
        found = bundle.load(tracking.fetched(settings.bundle, settings.mlflow, settings.state))
    except UserError as error:
        return _wrong("bundle", error, "make another with `insession train` or `insession bundle`")
    facts = f"{found.name}, {len(found.listings):,} listings, {found.manifest.dimensions} dimensions"
    return Finding(what="bundle", ok=True, found=facts)


def _port(settings: Settings) -> Finding:
    what = f"port {settings.port}"
    try:
        listen(settings.host, settings.port).close()
    except UserError as error:
        if _is_sidecar(settings.host, settings.port):
            return Finding(what=what, ok=True, found="a sidecar answers there")
        return _wrong(what, error)
    return Finding(what=what, ok=True, found="free")


def _is_sidecar(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().read() == msgspec.json.encode(Health())
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _state(settings: Settings) -> Finding:
    """Whether the folder can be written, or made where it is missing."""
    folder = settings.state.absolute()
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    wrong = "is not a folder" if not there.is_dir() else ""
    if not wrong and not os.access(there, os.W_OK | os.X_OK):
        wrong = "can't be written"
    return Finding(
        what="state folder",
        ok=not wrong,
        found=f"{there} {wrong}" if wrong else str(settings.state),
        todo="give a folder that can be written with --state" if wrong else "",
    )


def _wrong(what: str, error: UserError, todo: str = "") -> Finding:
    """An error as a finding: what stands behind its semicolon says what to do."""
    found, _, says = str(error).partition("; ")
    return Finding(what=what, ok=False, found=found, todo=says or todo)
