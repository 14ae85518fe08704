"""`insession serve`: the sidecar beside a search service."""

from __future__ import annotations

import click

from insession import logs
from insession.settings import Settings, options


@click.command("serve")
@click.option(
    "--page/--no-page", help="serve the demo's page at /, which lets anyone who sees it put events on clicks"
)
@options("host", "port", "bootstrap", "topic_prefix", "bundle", "state", "hold", "shadow", "shadow_share")
def command(settings: Settings, page: bool) -> None:
    """Follow the users' states and rank over HTTP, until SIGTERM or Ctrl-C.

    Prints its address once it answers; /readyz says when it has caught up. Each sidecar needs a --state folder of
    its own, which may be lost: it is read again from the topics. A new bundle that becomes `current` is taken
    without a stop.

    \b
    Example:
      insession import marketplace --visits 300 --out sim.jsonl.zst
      insession train sim.jsonl.zst --listings sim.listings.jsonl --out bundles
      insession topics
      insession serve --bundle bundles --state .insession
    """
    from serving import server

    logs.start()
    server.run(
        client=settings.client,
        topics=settings.topics,
        bundle=settings.bundle,
        state=settings.state / "serve",
        host=settings.host,
        port=settings.port,
        held=settings.held,
        shadow=settings.shadow,
        shadow_share=settings.shadow_share,
        page=page,
    )
