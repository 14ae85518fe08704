"""A short torture: two workers under load, killed and stopped, publish what the oracle says; with a guarantee off, they do not."""

from __future__ import annotations

import pytest

from tests import torture
from tests.conftest import kafka_home
from tests.torture import Plan


@pytest.mark.kafka
def test_what_two_workers_publish_while_they_are_killed_and_stopped_is_the_oracles() -> None:
    outcome = torture.run(Plan(events=36_000, kills=2, stops=1, changes=1, restarts=0, seed=7), kafka_home())
    assert outcome.differences == [], outcome.table()
    assert len(outcome.happened) == 4
    assert outcome.dead["late"] > 100


@pytest.mark.kafka
def test_without_deduplication_the_torture_fails() -> None:
    plan = Plan(events=6_000, kills=0, stops=0, changes=0, restarts=0, without="deduplication")
    assert any("closed sessions" in one for one in torture.run(plan, kafka_home()).differences)
