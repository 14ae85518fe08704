"""Fixtures of the tests that need a broker, and the rule that in CI none of them may be skipped; both clients to ask with."""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from insession_client import AsyncClient, Client

from models import bundle
from models.topics import Topics
from streams import broker, topics
from streams.broker import Broker
from tests.made import a_bundle
from tests.path import PARTITIONS

CI = bool(os.environ.get("CI"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """In CI a skipped test that needs Apache Kafka or recorded data has failed: nobody would notice that it never runs."""
    report = yield
    if CI and report.skipped and any(item.get_closest_marker(name) for name in ("kafka", "data")):  # type: ignore[attr-defined]
        report.outcome = "failed"  # type: ignore[attr-defined]
    return report


def kafka_home() -> Path:
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("KAFKA_HOME is not set: no Apache Kafka to test with")
    return Path(home)


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker]:
    """Apache Kafka, started once; tests use topics with a prefix of their own."""
    with broker.kafka(kafka_home()) as running:
        yield running


@pytest.fixture(scope="session")
def embedded() -> Iterator[Broker]:
    """The embedded broker, started once."""
    with broker.embedded() as running:
        yield running


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def any_broker(request: pytest.FixtureRequest) -> Broker:
    """Both brokers in turn."""
    running: Broker = request.getfixturevalue(request.param)
    return running


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    bundle.write(tmp_path / "bundles", a_bundle(40))
    return tmp_path / "bundles"


@pytest.fixture
def place(any_broker: Broker) -> tuple[topics.Client, Topics]:
    """Topics of a test's own, that keep everything."""
    client: topics.Client = {"bootstrap.servers": any_broker.bootstrap}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    topics.ensure(client, names, partitions=PARTITIONS, retention_ms=-1)
    return client, names


@pytest.fixture(params=[Client, AsyncClient])
def asking(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes a client of each kind, to be used the same way, and closes it."""
    with asyncio.Runner() as runner:
        made: list[Any] = []

        class Awaited:
            def __init__(self, client: AsyncClient) -> None:
                self.client = client

            def __getattr__(self, name: str) -> Any:
                found = getattr(self.client, name)
                if not inspect.iscoroutinefunction(found):
                    return found
                return lambda *args, **named: runner.run(found(*args, **named))

        def make(urls: Any, **named: Any) -> Any:
            client = request.param(urls, **{"timeout": 2.0, **named})
            made.append(Awaited(client) if isinstance(client, AsyncClient) else client)
            return made[-1]

        yield make
        for client in made:
            client.close()
