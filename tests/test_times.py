"""Times as the command line takes them."""

from __future__ import annotations

import click
import pytest

from insession.times import Time


@pytest.mark.parametrize(
    ("said", "milliseconds"),
    [
        ("2018-11-04", 1_541_289_600_000),
        ("2018-11-04T06:30+01:00", 1_541_309_400_000),
        ("1541289600000", 1_541_289_600_000),
        ("253402300799999", 253_402_300_799_999),
    ],
)
def test_a_time_is_a_date_or_milliseconds(said: str, milliseconds: int) -> None:
    assert Time().convert(said, None, None) == milliseconds


@pytest.mark.parametrize(
    "said", ["9999999999999999999", "253402300800000", "1960-01-01", "9" * 5_000, "soon"]
)
def test_what_no_event_could_be_dated_is_refused(said: str) -> None:
    with pytest.raises(click.BadParameter):
        Time().convert(said, None, None)
