"""`insession serve`: the sidecar beside a search service."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Sequence

import click

from insession import logs, tracking
from insession.settings import Settings, options
from models.errors import UserError


@click.command("serve")
@click.option(
    "--page/--no-page", help="serve the demo's page at /, which lets anyone who sees it put events on clicks"
)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="NAME=SHARE[:caller|:BUNDLE]",
    help="give a share of the users, 0 to 1, a variant of the ranking: the caller's order, or another bundle; repeatable [INSESSION_VARIANTS]",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="URL=PARTITIONS",
    help="a sidecar that holds other partitions, as in http://10.0.0.2:8080=0-3,7; repeatable [INSESSION_PEERS]",
)
@click.option("--log-users", is_flag=True, help="name users in the log; without it no user id stands there")
@options(
    "experiment",
    "processes",
    "host",
    "port",
    "bootstrap",
    "topic_prefix",
    "bundle",
    "mlflow",
    "state",
    "hold",
    "shadow",
    "shadow_share",
    "memory",
)
def command(
    settings: Settings, page: bool, variants: tuple[str, ...], peers: tuple[str, ...], log_users: bool
) -> None:
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
    from serving import partitions, processes
    from serving import variants as variants_

    token = settings.bearer
    if page and token:
        raise UserError("--page and a token do not go together: a browser does not send it; leave one out")
    given = variants or tuple(settings.variants.replace(",", " ").split())
    logs.start()
    once = functools.partial(tracking.fetched, uri=settings.mlflow, state=settings.state, or_before=True)
    dealt = variants_.parse(given, settings.experiment, once)
    others = partitions.parse(peers or tuple(settings.peers.split()))
    serve = functools.partial(
        _serve,
        settings,
        page=page,
        token=token,
        variants=dealt,
        peers=others,
        log_users=log_users,
        shadow=None if settings.shadow is None else once(settings.shadow),
    )
    if settings.processes > 1:
        processes.run(settings.processes, settings.host, settings.port, serve)
    else:
        serve(0, None, None)


def _serve(
    settings: Settings,
    number: int,
    sockets: Sequence[socket.socket] | None,
    started: Callable[[], None] | None,
    **told: object,
) -> None:
    """Serve alone, or as one of several processes, whose stores are numbered."""
    from serving import server

    logs.start()
    server.run(
        client=settings.client,
        topics=settings.topics,
        bundle=tracking.followed(settings.bundle, settings.mlflow, settings.state / f"bundles-{number}"),
        state=settings.state / (f"serve-{number}" if number else "serve"),
        host=settings.host,
        port=settings.port,
        sockets=sockets,
        started=started,
        **told,  # type: ignore[arg-type]
        held=settings.held,
        shadow_share=settings.shadow_share,
        memory_mb=settings.memory,
    )
