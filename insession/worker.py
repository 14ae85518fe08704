"""`insession worker`: clicks in, user embeddings out."""

from __future__ import annotations

import click

from insession import logs, tracking
from insession.settings import Settings, options


@click.command("worker")
@click.option(
    "--afresh",
    is_flag=True,
    help="where the states can't be continued (other topics, another cluster, clicks missing), "
    "begin from the oldest click instead of refusing",
)
@options("bootstrap", "topic_prefix", "application", "bundle", "mlflow", "state", "health_port", "host")
def command(settings: Settings, afresh: bool) -> None:
    """Keep session windows and publish each user's embedding, until SIGTERM or Ctrl-C.

    Start as many as there are partitions at most; each needs a --state folder of its own. Any failure ends the
    process, and what was not committed is done again by whoever takes over: run it under a supervisor. A bundle that
    becomes the current one is taken without a stop. With --health-port it answers /healthz, /readyz and /metrics.

    \b
    Example:
      insession import marketplace --visits 300 --out sim.jsonl.zst
      insession train sim.jsonl.zst --listings sim.listings.jsonl --out bundles
      insession topics
      insession worker --bundle bundles --state .insession
    """
    from streams import worker

    logs.start()
    worker.run(
        client=settings.client,
        topics=settings.topics,
        bundle=tracking.followed(settings.bundle, settings.mlflow, settings.state / "bundles-worker"),
        state=settings.state / "worker",
        application=settings.application,
        afresh=afresh,
        health=None if settings.health_port is None else (settings.host, settings.health_port),
    )
