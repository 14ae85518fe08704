"""`insession verify`: what is on the topics, or in a file, beside what a recording gives."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click
import msgspec

from insession import tracking
from insession.offline import listings_option, load, run
from insession.progress import Progress
from insession.settings import Settings, options
from models import expected
from models.errors import UserError
from models.expected import Comparison, Difference, Header

SHOWN = 400
"""So much of a record is shown."""


@click.command("verify")
@click.argument("recording", type=click.Path(path_type=Path))
@click.option(
    "--expected",
    "expected_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="compare with this expected result instead of the topics; needs no broker",
)
@click.option("--update", is_flag=True, help="with --expected: write that file anew")
@listings_option
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@options("bootstrap", "topic_prefix", "bundle", "mlflow")
def command(
    settings: Settings,
    recording: Path,
    expected_path: Path | None,
    update: bool,
    listings: Path | None,
    as_json: bool,
) -> None:
    """Compare what a worker has made of a recording with what the recording gives without a broker.

    The last record of each key on user-embeddings and user-histories, every session and every dead letter must be
    the same; vectors to 1e-5, since they may come from another machine. With --expected the same is asked of a file
    that `insession replay --offline --out` or --update wrote. The first difference is printed. Exits with 0 where all
    is equal, 1 where not, and 2 where there is nothing to compare, as when the worker has not come to the end.

    \b
    Example:
      insession import marketplace --visits 300 --out sim.jsonl.zst
      insession train sim.jsonl.zst --out bundles
      insession verify sim.jsonl.zst --expected sim.expected.jsonl --update
      insession verify sim.jsonl.zst --expected sim.expected.jsonl
    """
    if update and expected_path is None:
        raise click.UsageError("--update goes with --expected")
    if listings is not None and expected_path is None:
        raise click.UsageError(
            "--listings goes with --expected: what stands on the topics is read from there"
        )
    loaded = load(tracking.fetched(settings.bundle, settings.mlflow, settings.state), listings)
    if expected_path is None:
        from streams import verify

        with Progress(f"running {recording.name}", unit="events") as progress:
            comparison = verify.verify(settings.client, settings.topics, recording, loaded, progress.update)
        what = f"on the topics of {recording}"
    else:
        result = run(recording, loaded, keep=True)
        header = Header(bundle=loaded.name, recording=result.recording)
        if update:
            records = expected.write(expected_path, header, expected.result(result.outputs))
            if as_json:
                click.echo(msgspec.json.encode({"updated": str(expected_path), "records": records}))
            else:
                click.echo(f"{records:,} records are in {expected_path}")
            return
        comparison = compare(expected_path, header, expected.result(result.outputs))
        what = f"in {expected_path}"
    if as_json:
        click.echo(msgspec.json.encode(report(comparison)))
    else:
        click.echo(text(comparison, what))
    if not comparison.equal:
        sys.exit(1)


def compare(path: Path, header: Header, found: expected.Records) -> Comparison:
    """The result beside the file's. UserError where that is of another recording or bundle."""
    kept, records = expected.read(path)
    for name, of, this in (
        ("recording", kept.recording, header.recording),
        ("bundle", kept.bundle, header.bundle),
    ):
        if of != this:
            raise UserError(
                f"{path} is the result of another {name} ({of[:16]}, and this is {this[:16]}); "
                "write it anew with --update"
            )
    return expected.compare(records, found)


def report(comparison: Comparison) -> dict[str, object]:
    """The comparison as JSON has it."""
    return {
        "equal": comparison.equal,
        "records": comparison.records,
        "identical": comparison.identical,
        "close": comparison.close,
        "different": dict(comparison.different),
        "first": asdict(comparison.first) if comparison.first else None,
    }


def text(comparison: Comparison, what: str) -> str:
    """The comparison for people."""
    if comparison.first is None:
        close = f", {comparison.close:,} of them but for the last digits" if comparison.close else ""
        return f"equal: {comparison.records:,} records {what} are as expected{close}"
    by_topic = ", ".join(f"{count:,} of {topic}" for topic, count in comparison.different.items())
    different = comparison.different.total()
    return "\n".join(
        (
            *difference(comparison.first),
            f"{different:,} of {comparison.records:,} records {what} differ: {by_topic}",
        )
    )


def difference(first: Difference) -> list[str]:
    """A difference, in three lines."""
    where = f"{first.topic}, partition {first.partition}, key {first.key}: "
    where += f"{first.field} differs" if first.what == "differs" else first.what
    return [where, f"  expected {_cut(first.expected)}", f"  found    {_cut(first.found)}"]


def _cut(shown: str) -> str:
    return f"{shown[:SHOWN]}..." if len(shown) > SHOWN else shown or "nothing"
