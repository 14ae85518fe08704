"""`insession doctor`: what is wrong with this installation and its surroundings, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import socket
import sys
from collections.abc import Iterator

import click
import msgspec

from insession.settings import Settings, options
from models import bundle
from models.errors import UserError
from streams import topics

LIBRARIES = (
    "faust-streaming",
    "confluent-kafka",
    "rocksdict",
    "hnswlib",
    "msgspec",
    "numpy",
    "starlette",
    "uvicorn",
)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked at. `todo` says what to do where it is not `ok`."""

    what: str
    ok: bool
    found: str
    todo: str = ""


@click.command("doctor")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8080,
    show_default=True,
    help="where the sidecar will listen",
)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@options("bootstrap", "topic_prefix", "bundle", "state")
def command(settings: Settings, port: int, as_json: bool) -> None:
    """Look at versions, broker, topics, bundle and ports, and say what to do. Exits with 1 where something is wrong.

    \b
    Example:
      insession doctor --bootstrap 127.0.0.1:9092 --bundle bundles
    """
    findings = [*_versions(), *_broker(settings), _bundle(settings), _port(port), _state(settings)]
    if as_json:
        click.echo(msgspec.json.encode(findings))
    else:
        for finding in findings:
            click.echo(f"{'ok   ' if finding.ok else 'WRONG'}  {finding.what}: {finding.found}")
            if not finding.ok:
                click.echo(f"       {finding.todo}")
    sys.exit(0 if all(finding.ok for finding in findings) else 1)


def _versions() -> Iterator[Finding]:
    version = platform.python_version()
    yield Finding(
        what="Python", ok=sys.version_info >= (3, 11), found=version, todo="install Python 3.11 or later"
    )
    for name in LIBRARIES:
        try:
            yield Finding(what=name, ok=True, found=importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(what=name, ok=False, found="missing", todo="install with `pip install insession`")
    trains = importlib.util.find_spec("torch") is not None
    found = "installed" if trains else "not installed; only `insession train` needs it"
    yield Finding(what="torch", ok=True, found=found)


def _broker(settings: Settings) -> Iterator[Finding]:
    try:
        cluster = topics.cluster_id(settings.client)
        yield Finding(what="broker", ok=True, found=f"cluster {cluster} at {settings.bootstrap}")
        for finding in topics.check(topics.describe(settings.client, settings.topics.all), settings.topics):
            todo = "" if finding.ok else finding.says
            yield Finding(what=f"topic {finding.topic}", ok=finding.ok, found=finding.says, todo=todo)
    except UserError as error:
        yield Finding(
            what="broker",
            ok=False,
            found=f"nobody answers at {settings.bootstrap}",
            todo=str(error),
        )


def _bundle(settings: Settings) -> Finding:
    try:
        found = bundle.load(settings.bundle)
    except UserError as error:
        return Finding(
            what="bundle",
            ok=False,
            found=str(error),
            todo="make one with `insession train` or `insession bundle`, and name it with --bundle",
        )
    facts = f"{found.name}, {len(found.listings):,} listings, {found.manifest.dimensions} dimensions"
    return Finding(what="bundle", ok=True, found=facts)


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return Finding(
                what=f"port {port}",
                ok=False,
                found=str(error.strerror),
                todo="a sidecar may be running already; else give `insession serve` another --port",
            )
    return Finding(what=f"port {port}", ok=True, found="free")


def _state(settings: Settings) -> Finding:
    try:
        settings.state.mkdir(parents=True, exist_ok=True)
        probe = settings.state / ".doctor"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return Finding(
            what="state folder",
            ok=False,
            found=f"{settings.state}: {error.strerror}",
            todo="give a folder that can be written with --state",
        )
    return Finding(what="state folder", ok=True, found=str(settings.state))
