"""`insession worker`: clicks in, user embeddings out."""

from __future__ import annotations

import logging

import click

from insession.settings import Settings, options


@click.command("worker")
@click.option(
    "--afresh",
    is_flag=True,
    help="where the states can't be continued (other topics, another cluster, clicks missing), "
    "begin from the oldest click instead of refusing",
)
@options("bootstrap", "topic_prefix", "application", "bundle", "state")
def command(settings: Settings, afresh: bool) -> None:
    """Keep session windows and publish each user's embedding, until SIGTERM or Ctrl-C.

    Start as many as there are partitions at most; each needs a --state folder of its own. Any failure ends the
    process, and what was not committed is done again by whoever takes over: run it under a supervisor.

    \b
    Example:
      insession worker --bootstrap 127.0.0.1:9092 --bundle bundles --state .insession
    """
    from streams import worker

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("insession").setLevel(logging.INFO)
    worker.run(
        client=settings.client,
        topics=settings.topics,
        bundle=settings.bundle,
        state=settings.state / "worker",
        application=settings.application,
        afresh=afresh,
    )
