"""Brokers that demand a password, encryption or a certificate: every client of ours is told, and a refusal is told to the user."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from insession.online import Producing
from insession.processes import COMMAND, Process, insession
from insession.security import off
from insession.settings import PREFIX, load
from insession.sidecar import Sidecar
from models import bundle
from models.errors import UserError
from models.rank import Candidate
from models.recording import partition_of, read
from models.topics import Topics
from serving.api import RankRequest
from streams import broker
from tests.conftest import kafka_home
from tests.made import a_bundle
from tests.path import PARTITIONS, as_record, click

PASSWORD = "correct-horse-7"
KEY_PASSWORD = "battery-staple-9"
LOGIN = "org.apache.kafka.common.security"
PROPERTIES = f"""\
listeners=PLAINTEXT://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{controller}},SASL://127.0.0.1:@sasl,BOTH://127.0.0.1:@both,TLS://127.0.0.1:@tls
advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},SASL://127.0.0.1:@sasl,BOTH://127.0.0.1:@both,TLS://127.0.0.1:@tls
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,BOTH:SASL_SSL,TLS:SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl.plain.sasl.jaas.config={LOGIN}.plain.PlainLoginModule required user_ann="{PASSWORD}";
listener.name.sasl.scram-sha-256.sasl.jaas.config={LOGIN}.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.sasl.jaas.config={LOGIN}.scram.ScramLoginModule required;
listener.name.both.plain.sasl.jaas.config={LOGIN}.plain.PlainLoginModule required user_ann="{PASSWORD}";
listener.name.both.scram-sha-256.sasl.jaas.config={LOGIN}.scram.ScramLoginModule required;
listener.name.both.scram-sha-512.sasl.jaas.config={LOGIN}.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location=@folder/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=@folder/ca.pem
listener.name.tls.ssl.client.auth=required
"""


@dataclass(frozen=True)
class Guarded:
    """A broker and its doors."""

    plain: str
    ports: dict[str, int]
    folder: Path

    def environment(self, protocol: str, mechanism: str = "", **changes: str) -> dict[str, str]:
        """What a process is told to come in, or not, by the `changes`."""
        port = self.ports[{"SASL_PLAINTEXT": "sasl", "SASL_SSL": "both", "SSL": "tls"}[protocol]]
        told = {"bootstrap": f"127.0.0.1:{port}", "security_protocol": protocol}
        if protocol.startswith("SASL"):
            told |= {"sasl_mechanism": mechanism, "sasl_username": "ann", "sasl_password": PASSWORD}
        if protocol.endswith("SSL"):
            told["ssl_ca"] = str(self.folder / "ca.pem")
        if protocol == "SSL":
            told |= {"ssl_certificate": str(self.folder / "client.pem"), "ssl_key_password": KEY_PASSWORD}
            told["ssl_key"] = str(self.folder / "client.key")
        return {f"{PREFIX}{name.upper()}": value for name, value in (told | changes).items()}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Apache Kafka with a door for each protocol; the one without a guard is the test's own."""
    home, folder = kafka_home(), tmp_path_factory.mktemp("certificates")
    certify(folder)
    ports = {name: broker.free_port() for name in ("sasl", "both", "tls")}
    properties = PROPERTIES.replace("@folder", str(folder))
    for name, port in ports.items():
        properties = properties.replace(f"@{name}", str(port))
    with broker.kafka(home, properties=properties) as running:
        admin = AdminClient({"bootstrap.servers": running.bootstrap, "log_level": 0})
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            info = ScramCredentialInfo(mechanism, 4096)
            change = UserScramCredentialUpsertion("ann", info, PASSWORD.encode())
            for future in admin.alter_user_scram_credentials([change]).values():
                future.result()
        yield Guarded(running.bootstrap, ports, folder)


def certify(folder: Path) -> None:
    """An authority, and certificates by it for the server and for a client, whose key has a password."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    def request(name: str, *arguments: str) -> None:
        subject = ("-subj", f"/CN={name}", "-keyout", f"{name}.key")
        openssl("req", "-newkey", "rsa:2048", *subject, *arguments)

    request("ca", "-x509", "-nodes", "-days", "2", "-out", "ca.pem")
    request("stranger", "-x509", "-nodes", "-days", "2", "-out", "stranger.pem")
    request("server", "-nodes", "-out", "server.csr")
    request("client", "-passout", f"pass:{KEY_PASSWORD}", "-out", "client.csr")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    for name in ("server", "client"):
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")
    with (folder / "server.pem").open("a") as chain:
        chain.write((folder / "server.key").read_text())


def run(environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, within seconds."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    return done.returncode, done.stdout, done.stderr


def hides(process: Process) -> bool:
    """Whether no password is in a process's arguments or log."""
    line = Path(f"/proc/{process.popen.pid}/cmdline").read_bytes().decode()
    return not any(word in line + process.log.read_text() for word in (PASSWORD, KEY_PASSWORD))


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("protocol", "mechanism"),
    [
        ("SASL_PLAINTEXT", "PLAIN"),
        ("SASL_PLAINTEXT", "SCRAM-SHA-256"),
        ("SASL_SSL", "SCRAM-SHA-512"),
        ("SSL", ""),
    ],
)
def test_every_process_comes_in(guarded: Guarded, tmp_path: Path, protocol: str, mechanism: str) -> None:
    names = Topics(f"{protocol}-{mechanism or 'none'}-".lower())
    environment = guarded.environment(protocol, mechanism, topic_prefix=names.prefix)
    bundle.write(tmp_path / "bundles", a_bundle(40))
    code, _, errors = run(environment, "topics", "--partitions", str(PARTITIONS))
    assert code == 0, errors
    common = ("--bundle", str(tmp_path / "bundles"), "--state", str(tmp_path / "state"))
    with (
        insession(
            "worker", *common, ready="worker", log=tmp_path / "worker.log", environment=environment
        ) as worker,
        insession(
            "serve",
            *common,
            "--port",
            "0",
            ready="serving on ",
            log=tmp_path / "serve.log",
            environment=environment,
        ) as serve,
        closing(Sidecar(serve.line.removeprefix("serving on "))) as sidecar,
    ):
        sidecar.wait_until_ready()
        # Through the door without a guard: what is tested are the worker and the sidecar.
        producing = Producing({"bootstrap.servers": guarded.plain}, names.clicks)
        producing.produce(
            partition_of(b"ann", PARTITIONS), as_record(click("ann", 1, int(time.time() * 1000)))
        )
        last = producing.last(b"ann")
        assert last is not None
        answer = sidecar.rank(
            RankRequest(user_id="ann", candidates=(Candidate("l7"),), min_offset=last[1], deadline_ms=10_000)
        )
        assert answer.outcome == "ranked"
        assert hides(worker)
        assert hides(serve)
    assert run(environment, "record", "--out", str(tmp_path / "r.jsonl"))[0] == 0
    assert [record.key for record in read(tmp_path / "r.jsonl")[1]] == [b"ann"]
    code, out, errors = run(environment, "doctor", *common)
    assert "cluster" in out
    assert PASSWORD not in out + errors


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("protocol", "mechanism", "changes", "says"),
    [
        (
            "SASL_PLAINTEXT",
            "PLAIN",
            {"sasl_password": "wrong-pony"},
            "the user ann .*[Aa]uthentication failed",
        ),
        (
            "SASL_SSL",
            "SCRAM-SHA-512",
            {"sasl_password": "wrong-pony"},
            "the user ann .*[Aa]uthentication failed",
        ),
        ("SASL_SSL", "PLAIN", {"ssl_ca": "stranger.pem"}, "certificate verify failed"),
        ("SSL", "", {"ssl_key_password": "wrong-pony"}, "SSL_KEY_PASSWORD do not go together"),
        ("SSL", "", {"ssl_certificate": "", "ssl_key": "", "ssl_key_password": ""}, "alert bad certificate"),
    ],
)
def test_who_may_not_come_in_is_told_so_within_seconds(
    guarded: Guarded, tmp_path: Path, protocol: str, mechanism: str, changes: dict[str, str], says: str
) -> None:
    if "ssl_ca" in changes:
        changes = {"ssl_ca": str(guarded.folder / changes["ssl_ca"])}
    environment = guarded.environment(protocol, mechanism, **changes)
    bundle.write(tmp_path / "bundles", a_bundle(40))
    for command in (
        ("topics",),
        ("worker", "--bundle", str(tmp_path / "bundles"), "--state", str(tmp_path / "state")),
        ("record", "--out", str(tmp_path / "r.jsonl")),
    ):
        started = time.monotonic()
        code, out, errors = run(environment, *command)
        assert (code, out) == (2, ""), errors
        [line] = errors.splitlines()
        assert line.startswith("insession: ")
        assert "INSESSION_" in line
        assert re.search(says, line), line
        assert "wrong-pony" not in line
        assert time.monotonic() - started < 10


@pytest.mark.kafka
def test_a_sidecar_that_may_not_come_in_says_so_when_asked(guarded: Guarded, tmp_path: Path) -> None:
    environment = guarded.environment("SASL_PLAINTEXT", "PLAIN", sasl_password="wrong-pony")
    bundle.write(tmp_path / "bundles", a_bundle(40))
    command = ("serve", "--bundle", str(tmp_path / "bundles"), "--state", str(tmp_path / "state"))
    log = tmp_path / "log"
    with insession(*command, "--port", "0", ready="serving on ", log=log, environment=environment) as process:
        url = process.line.removeprefix("serving on ")
        deadline = time.monotonic() + 15
        while "Authentication failed" not in (says := asked(url)):
            assert time.monotonic() < deadline, says
            time.sleep(0.2)
    assert "wrong-pony" not in says + log.read_text()


def asked(url: str) -> str:
    """The body of /readyz."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=10)
    with closing(connection):
        connection.request("GET", "/readyz")
        return connection.getresponse().read().decode()


SASL = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "PLAIN",
    "sasl_username": "ann",
    "sasl_password": "pony",
}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"security_protocol": "TLS"}, "INSESSION_SECURITY_PROTOCOL: .*'SASL_SSL'; got 'TLS'"),
        (
            {**SASL, "sasl_mechanism": "MD5"},
            "INSESSION_SASL_MECHANISM: .*'PLAIN'.*'SCRAM-SHA-512' or ''; got 'MD5'",
        ),
        ({**SASL, "sasl_username": ""}, "needs INSESSION_SASL_USERNAME too"),
        (
            {"security_protocol": "SASL_PLAINTEXT"},
            "needs .*MECHANISM, .*USERNAME, .*PASSWORD too; .*SCRAM-SHA-256",
        ),
        (
            {**SASL, "security_protocol": ""},
            "SASL_MECHANISM is set, .* is PLAINTEXT.* to SASL_PLAINTEXT or SASL_SSL",
        ),
        ({**SASL, "security_protocol": "SSL"}, "SASL_MECHANISM is set, .* is SSL"),
        ({"sasl_password": "pony"}, "SASL_PASSWORD is set, .* is PLAINTEXT"),
        ({"ssl_ca": __file__}, "SSL_CA is set, .* is PLAINTEXT.* to SSL or SASL_SSL"),
        ({"security_protocol": "SSL", "ssl_key": __file__}, "SSL_CERTIFICATE and .*SSL_KEY go together"),
        ({"security_protocol": "SSL", "ssl_key_password": "pony"}, "there is no INSESSION_SSL_KEY"),
        ({**SASL, "ssl_ca": __file__}, "INSESSION_SSL_CA: .* has no certificates"),
        ({**SASL, "ssl_ca": "absent.pem"}, "INSESSION_SSL_CA: absent.pem is no file"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_with_what_does(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], says: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
    with pytest.raises(UserError, match=says) as error:
        load()
    assert "pony" not in str(error.value)


def test_no_password_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SASL.items():
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
    settings = load()
    assert settings.client["sasl.password"] == "pony"
    assert "pony" not in f"{settings!r} {settings}"
    assert "pony" not in run(dict(os.environ), "topics", "--help")[1]


def test_a_broker_of_our_own_demands_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SASL.items():
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
    assert len(load(bootstrap="127.0.0.1:1").client) == 5
    for name, value in off(PREFIX).items():
        monkeypatch.setenv(name, value)
    assert load(bootstrap="127.0.0.1:1").client == {"bootstrap.servers": "127.0.0.1:1"}
