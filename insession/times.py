"""Times on the command line: ISO dates and times, in UTC where they name no zone, or milliseconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime

import click
import msgspec

from models.events import Timestamp


class Time(click.ParamType):
    """A time, as milliseconds since the epoch: `2018-11-04`, `2018-11-04T06:30`, `2018-11-04T06:30+01:00`, `1541289600000`."""

    name = "TIME"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if value.isdecimal() and 8 < len(value) < 20:
            milliseconds = int(value)
        else:
            try:
                time = datetime.fromisoformat(value)
            except ValueError:
                self.fail(
                    f"`{value}` is neither an ISO date or time nor milliseconds since the epoch", param, ctx
                )
            milliseconds = round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
        try:
            return msgspec.convert(milliseconds, Timestamp)
        except msgspec.ValidationError:
            self.fail(f"`{value}` is not a time from 1970 to 9999", param, ctx)


def text(timestamp: int) -> str:
    """A time for people: `2018-11-04 06:30:00 UTC`."""
    return f"{datetime.fromtimestamp(timestamp / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
