"""What one pass over a recording counts, for the checks of `validation`. Events are read and judged by the worker's own functions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import inf

from models import sessions
from models.datasets.distinct import Homes
from models.datasets.joins import Choices, Joins
from models.datasets.visits import Visits
from models.events import EventError, Impossible, Late, Search, Tick, UserEvent, decode
from models.recording import Record, home
from models.sessions import KINDS

YEAR_2000 = 946_684_800_000
DIGITS = 4
"""Prices are counted by so many digits: a median to these is the exact one, rounded."""


@dataclass(slots=True)
class Prices:
    """Prices: those of 0, and of the others the least, the greatest, and how many there are of each when rounded."""

    rounded: Counter[float] = field(default_factory=Counter)
    free: int = 0
    lowest: float = inf
    highest: float = 0.0

    def add(self, price: float | None) -> None:
        if price == 0:
            self.free += 1
        elif price is not None:
            self.rounded[float(f"{price:.{DIGITS}g}")] += 1
            self.lowest = min(self.lowest, price)
            self.highest = max(self.highest, price)

    def median(self) -> float:
        """The price that half of the prices do not exceed, to `DIGITS` digits; 0 without prices."""
        left = self.rounded.total() / 2
        for price, count in sorted(self.rounded.items()):
            left -= count
            if left <= 0:
                return price
        return 0.0


@dataclass(slots=True)
class Tally:
    """What one pass counts."""

    partitions: int
    known: set[str] | None = None
    """The ids of the listings that something is known of, where a catalogue was given."""
    records: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """Records that can't be applied, by reason."""
    first_errors: dict[str, str] = field(default_factory=dict)
    backwards: int = 0
    """Records with an earlier Kafka timestamp than the one before in their partition."""
    offsets: int = 0
    offsets_wrong: int = 0
    """Records with an offset, and those whose is not greater than the one before in their partition."""
    ancient: int = 0
    """Events dated before the year 2000."""
    users: Homes = field(default_factory=Homes)
    """Users, each with its partitions."""
    actions: int = 0
    of_known: int = 0
    with_market: int = 0
    listings: Homes = field(default_factory=Homes)
    """Listings acted on with a market, each with its markets."""
    prices: Prices = field(default_factory=Prices)
    joins: Joins = field(default_factory=Joins)
    choices: Choices = field(default_factory=Choices)
    visits: Visits = field(default_factory=Visits)
    _watermarks: Counter[int] = field(default_factory=Counter)
    _last: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, line: int, record: Record) -> None:
        """A record, in the recording's order, and its line in the file."""
        self.records += 1
        partition = home(record, self.partitions)
        self._place(partition, record)
        try:
            event = decode(record.value, record.key)
            sessions.check(event, record.timestamp, self._watermarks[partition])
        except EventError as error:
            self.errors[error.reason] += 1
            self.first_errors.setdefault(error.reason, f"line {line}: {error}")
            if not isinstance(error, Late | Impossible):
                return
        else:
            reached = min(event.timestamp, record.timestamp)
            self._watermarks[partition] = max(self._watermarks[partition], reached)
        self.kinds[event.__struct_config__.tag] += 1  # type: ignore[index]
        if not isinstance(event, Tick):
            self._user_event(partition, event)

    def _place(self, partition: int, record: Record) -> None:
        time, offset = self._last.get(partition, (0, -1))
        self.backwards += record.timestamp < time
        if record.offset is not None:
            self.offsets += 1
            self.offsets_wrong += record.offset <= offset
            offset = record.offset
        self._last[partition] = record.timestamp, offset

    def _user_event(self, partition: int, event: UserEvent) -> None:
        self.ancient += event.timestamp < YEAR_2000
        self.users.add(event.user_id, partition)
        self.joins.add(event)
        self.choices.add(event)
        if isinstance(event, Search):
            for result in event.results:
                self.prices.add(result.price)
        if type(event) not in KINDS:
            return
        listing, market = event.listing_id, event.market  # type: ignore[union-attr]
        self.actions += 1
        self.of_known += self.known is not None and listing in self.known
        if market is not None:
            self.with_market += 1
            self.listings.add(listing, market)
        if KINDS[type(event)] != "rejection":  # the host's
            self.visits.add(partition, event.user_id, event.timestamp)
