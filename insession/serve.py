"""`insession serve`: the sidecar beside a search service."""

from __future__ import annotations

import logging

import click

from insession.settings import Settings, options


@click.command("serve")
@click.option(
    "--host", default="127.0.0.1", show_default=True, envvar="INSESSION_HOST", help="address to listen on"
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    envvar="INSESSION_PORT",
    help="0: a free one; it is printed",
)
@click.option(
    "--page/--no-page", help="serve the demo's page at /, which lets anyone who sees it put events on clicks"
)
@options("bootstrap", "topic_prefix", "bundle", "state")
def command(settings: Settings, host: str, port: int, page: bool) -> None:
    """Follow the users' states and rank over HTTP, until SIGTERM or Ctrl-C.

    Prints its address once it answers; /readyz says when it has caught up. Each sidecar needs a --state folder of
    its own, which may be lost: it is read again from the topics.

    \b
    Example:
      insession serve --bootstrap 127.0.0.1:9092 --bundle bundles --port 8080
    """
    from serving import server

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("insession").setLevel(logging.INFO)
    server.run(
        client=settings.client,
        topics=settings.topics,
        bundle=settings.bundle,
        state=settings.state / "serve",
        host=host,
        port=port,
        page=page,
    )
