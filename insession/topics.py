"""`insession topics`: make the topics that are missing, and say how those that are there stand."""

from __future__ import annotations

import sys

import click
import msgspec

from insession.settings import Settings, options
from models.topics import DAY_MS, RETENTION_MS
from streams import topics

RETENTION = {"week": RETENTION_MS, "month": 30 * DAY_MS, "year": 365 * DAY_MS, "forever": -1}


@click.command("topics")
@click.option("--check", is_flag=True, help="make nothing, only look")
@click.option(
    "--retention",
    type=click.Choice(list(RETENTION)),
    help="how long clicks, sessions and dead letters are kept; `forever` to replay into  [default: week, for topics that are made]",
)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@options("bootstrap", "topic_prefix", "partitions", "replication")
def command(settings: Settings, check: bool, retention: str | None, as_json: bool) -> None:
    """Make the topics that are missing, and check those that are there. Exits with 1 where one is not as it must be.

    Topics that are there are left as they are: where they have not the --partitions or the --retention asked for, it
    says how to change that.

    \b
    Example:
      insession topics --partitions 4
    """
    client, names = settings.client, settings.topics
    partitions = settings.partitions if "partitions" in settings.model_fields_set else None
    retention_ms = RETENTION[retention] if retention else None
    findings = (
        topics.check(
            topics.describe(client, names.all), names, partitions=partitions, retention_ms=retention_ms
        )
        if check
        else topics.ensure(
            client,
            names,
            partitions=partitions,
            replication=settings.replication,
            retention_ms=retention_ms,
        )
    )
    if as_json:
        click.echo(msgspec.json.encode(findings))
    else:
        for finding in findings:
            todo = f"; {finding.todo}" if finding.todo else ""
            click.echo(f"{'ok   ' if finding.ok else 'WRONG'}  {finding.topic} {finding.says}{todo}")
    sys.exit(0 if all(finding.ok for finding in findings) else 1)
