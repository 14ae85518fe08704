"""The error for a user's mistake: its message is one line that says what is wrong and what to do."""

from __future__ import annotations


class UserError(Exception):
    """Something the user gave can't be used. Commands print it and exit with 2; never a traceback."""


def no_broker(bootstrap: object, why: str) -> str:
    """What is said where no broker answers."""
    return (
        f"no Kafka broker answers at {bootstrap} ({why}); "
        "start one with `insession broker`, or name yours with --bootstrap or INSESSION_BOOTSTRAP, and where it demands "
        "encryption or a password, set INSESSION_SECURITY_PROTOCOL"
    )
