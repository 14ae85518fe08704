"""`insession broker`: a broker on this machine, until Ctrl-C."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from streams import broker

kafka_home = click.option(
    "--kafka-home",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="run Apache Kafka from this folder (needs Java 17) instead of the embedded broker",
)
"""The flag of every command that starts a broker."""


@click.command("broker")
@click.option("--port", type=click.IntRange(0, 65535), default=9092, show_default=True, help="0: a free one")
@kafka_home
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="where Kafka keeps its data")
def command(port: int, kafka_home: Path | None, data: Path | None) -> None:
    """Run a broker on 127.0.0.1 until Ctrl-C.

    The embedded one needs no Java and keeps nothing on disk. Apache Kafka is what the guarantees hold on.

    \b
    Example:
      insession broker --port 0
    """
    if data is not None and kafka_home is None:
        raise click.UsageError("--data is for Apache Kafka: give --kafka-home too")
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    with broker.run(kafka_home, port or None, data) as running:
        click.echo(f"broker ready: {running.bootstrap}")
        while not ending.wait(0.5):
            if running.process.poll() is not None:
                raise click.ClickException(f"the broker ended with code {running.process.returncode}")
