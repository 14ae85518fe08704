"""`insession broker`: a broker on this machine, until Ctrl-C."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from streams import broker


@click.command("broker")
@click.option("--port", type=click.IntRange(0, 65535), default=9092, show_default=True, help="0: a free one")
@click.option(
    "--kafka-home",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    envvar="KAFKA_HOME",
    help="run Apache Kafka from here (needs Java 17) instead of the embedded broker [KAFKA_HOME]",
)
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="where Kafka keeps its data")
def command(port: int, kafka_home: Path | None, data: Path | None) -> None:
    """Run a broker on 127.0.0.1 until Ctrl-C.

    The embedded one needs no Java and keeps nothing on disk. Apache Kafka is what the guarantees hold on.

    \b
    Example:
      insession broker --port 9092
    """
    if data is not None and kafka_home is None:
        raise click.UsageError("--data is for Apache Kafka: give --kafka-home too")
    run = broker.kafka(kafka_home, port or None, data) if kafka_home else broker.embedded(port or None)
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    with run as running:
        click.echo(f"broker ready: {running.bootstrap}")
        while not ending.wait(0.5):
            if running.process.poll() is not None:
                raise click.ClickException(f"the broker ended with code {running.process.returncode}")
