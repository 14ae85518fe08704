"""Topics, a worker and a sidecar that run, on a broker that is started where none is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from insession import security
from insession.processes import insession
from insession.settings import PREFIX, load
from insession.sidecar import Sidecar
from models.topics import Topics
from streams import broker, topics

ALONE = {f"{PREFIX}{name}": "" for name in ("TOKEN", "TOKEN_FILE", "PROCESSES", "VARIANTS", "PEERS")}
"""The environment of a sidecar of our own, which asks for no token and ranks for all."""


@contextmanager
def running(
    bundle: Path,
    *,
    bootstrap: str | None = None,
    kafka_home: Path | None = None,
    prefix: str = "",
    partitions: int | None = None,
    port: int = 0,
    page: bool = False,
) -> Iterator[tuple[topics.Client, Topics, Sidecar]]:
    """Topics with `prefix` that keep everything, a worker, and a sidecar on `port` (0: a free one) that is ready.

    All of it ends with the `with`; on the broker at `bootstrap` the topics are deleted, another is started for this.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="insession-")))
        names = Topics(prefix)
        client: topics.Client
        if bootstrap is None:
            bootstrap = stack.enter_context(broker.run(kafka_home)).bootstrap
            client, environment = {"bootstrap.servers": bootstrap}, security.off(PREFIX)
        else:
            client, environment = load(bootstrap=bootstrap).client, {}
            stack.callback(topics.delete, client, names)
        topics.ensure(client, names, partitions=partitions, retention_ms=-1)
        common = ["--bootstrap", bootstrap, "--topic-prefix", prefix, "--bundle", str(bundle)]
        common += ["--state", str(folder)]
        log = folder / "worker.log"
        stack.enter_context(
            insession("worker", *common, ready="worker ready", log=log, environment=environment)
        )
        flags = ["--port", str(port), *(["--page"] if page else [])]
        serving = stack.enter_context(
            insession(
                "serve",
                *common,
                *flags,
                ready="serving on ",
                log=folder / "serve.log",
                environment={**environment, **ALONE},
            )
        )
        sidecar = stack.enter_context(closing(Sidecar(serving.line.removeprefix("serving on "))))
        sidecar.wait_until_ready()
        yield client, names, sidecar
