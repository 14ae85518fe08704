"""The command: `insession VERB`. Verbs are imported when called, so that a worker never imports what training needs."""

from __future__ import annotations

import importlib
import signal
import sys
from typing import NoReturn

import click

from models.errors import UserError

VERBS = {
    "import": "insession.import_",
    "validate": "insession.validate",
    "train": "insession.train",
    "bundle": "insession.bundle",
    "evaluate": "insession.evaluate",
    "broker": "insession.broker",
    "topics": "insession.topics",
    "worker": "insession.worker",
    "serve": "insession.serve",
    "record": "insession.record",
    "replay": "insession.replay",
    "verify": "insession.verify",
    "dead-letters": "insession.dead_letters",
    "forget": "insession.forget",
    "demo": "insession.demo",
    "doctor": "insession.doctor",
}

EXTRA = ("torch", "pyarrow")
"""What only the extra `train` installs."""


class Verbs(click.Group):
    """A group whose commands are each in a module of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command = importlib.import_module(VERBS[name]).command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="insession")
def group() -> None:
    """Real-time, in-session personalization on Kafka."""


def main() -> None:
    """The entry point: a user's mistake is one line on stderr and exit code 2, Ctrl-C and SIGTERM one and 130."""
    # SIGTERM too ends what is under way by an exception: nothing half-written stays. Those that serve have their own.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = group(prog_name="insession", standalone_mode=False)
    except UserError as error:
        _end(2, str(error))
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _end(130, "interrupted")
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        _end(2, f"this needs {error.name}: pip install 'insession[train]'")
    sys.exit(code)


def _end(code: int, says: str) -> NoReturn:
    print(f"insession: {says}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
