"""Whether a recording can be trusted to learn from: one pass over its records, and the checks that come of it.

Memory grows by eight bytes for each id, 16 for each place of one, and else with what is open at a time: visits, and the newest searches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from os import PathLike

from models.datasets import checks
from models.datasets.checks import Check, common, rare
from models.datasets.tally import Prices, Tally
from models.datasets.visits import AWAKE, FAST, HOUR, Visits
from models.listings import Listing
from models.recording import read
from models.sessions import WINDOWS

STEP = 10_000
"""Progress is told every so many records."""


def validate(
    path: str | PathLike[str],
    listings: Iterable[Listing] | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[int, list[Check]]:
    """How many records the recording at `path` has, and the checks, the more fundamental first.

    With the `listings` of a catalogue, checks too whether it is these that are acted on. Raises UserError where the
    file can't be read as a recording.
    """
    header, records = read(path)
    known: set[str] | None = None
    prices = Prices()
    if listings is not None:
        known = set()
        for listing in listings:
            known.add(listing.listing_id)
            prices.add(listing.price)
    tally = Tally(header.partitions, known)
    for line, record in enumerate(records, 2):
        tally.add(line, record)
        if not tally.records % STEP:
            on_progress(tally.records)
    tally.visits.end()
    return tally.records, list(_checks(tally, prices if known is not None else None))


def _checks(tally: Tally, catalogue: Prices | None) -> Iterator[Check]:
    yield from _records(tally)
    yield from _order(tally)
    yield from _ids(tally)
    yield _known(tally)
    yield from _lists(tally)
    yield from _visits(tally.visits)
    yield _markets(tally)
    yield _prices("prices shown", tally.prices)
    if catalogue is not None:
        yield _prices("prices of listings", catalogue)


def _records(tally: Tally) -> Iterator[Check]:
    yield rare(
        "readable",
        tally.errors["unreadable"],
        tally.records,
        f"records are unreadable{_first(tally, 'unreadable')}",
        "mend what produces them (docs/topics.md says what an event is); a worker makes dead letters of them",
    )
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in tally.kinds.most_common())
    missing = [kind for kind in ("search", "click", "booking") if not tally.kinds[kind]]
    todo = {
        "search": "without searches nothing can be learned or measured of re-ranking",
        "click": "without clicks no vectors can be learned: record the topic on which visitors' clicks are",
        "booking": "without bookings only clicks are learned from",
    }
    yield Check(
        what="kinds",
        status="fail" if "click" in missing else "warn" if missing else "pass",
        found=kinds or "no events",
        todo="; ".join(todo[kind] for kind in missing),
        numbers=dict(tally.kinds),
    )


def _order(tally: Tally) -> Iterator[Check]:
    yield rare(
        "order",
        tally.backwards,
        tally.records,
        "records have an earlier Kafka timestamp than the one before them in their partition",
        "let producers stamp records when they send them, and send a user's events in their order",
    )
    yield rare(
        "offsets",
        tally.offsets_wrong,
        tally.offsets,
        "records with an offset have none greater than the one before them in their partition",
        "the file is not one partition after the other as recorded: record the topic anew",
        limit=0,
    )
    yield rare(
        "late",
        tally.errors["late"],
        tally.records,
        f"records are more than {WINDOWS.grace // 60_000} minutes behind their partition{_first(tally, 'late')}",
        "a worker drops them: send events as they happen, and do not replay old ones onto the topic",
    )
    yield rare(
        "ahead",
        tally.errors["impossible"],
        tally.records,
        f"records are dated more than {WINDOWS.ahead // 60_000} minutes after their Kafka timestamp"
        f"{_first(tally, 'impossible')}",
        "a worker drops them: set the clocks of what produces them, and see that `timestamp` is UTC",
    )
    yield rare(
        "years",
        tally.ancient,
        tally.joins.named,
        "events are from before the year 2000",
        "`timestamp` is in milliseconds: are these seconds?",
    )
    users, moved = tally.users.count()
    yield rare(
        "partitions",
        moved,
        users,
        "users have events in more than one partition",
        "let all producers use the user id as key and Kafka's default (murmur2) partitioner: "
        "a user in two partitions is two visitors",
    )


def _ids(tally: Tally) -> Iterator[Check]:
    joins = tally.joins
    yield rare(
        "duplicates",
        joins.duplicates,
        joins.named,
        "events have the id of another event of their user",
        "give each event an id of its own; with the id of one in the open visit it is dropped",
    )
    named, lost, others = joins.of_searches()
    elsewhere = f", {others:,} of them one of another user" if others else ""
    yield rare(
        "search ids",
        lost,
        named,
        f"actions name a search that their user has not made{elsewhere}",
        "send the `search_id` of the list the visitor saw, under the same user id as the search",
    )
    leaves, lost = joins.of_events()
    yield rare(
        "leaves",
        lost,
        leaves,
        "leaves are of an event that their user has not",
        "`of` is the `event_id` of the event that was left, under the same user id",
    )


def _known(tally: Tally) -> Check:
    if tally.known is None:
        return Check(
            what="listings", status="skip", found="no listings to compare with: give --listings FILE"
        )
    return common(
        "listings",
        tally.actions - tally.of_known,
        tally.actions,
        "actions are on a listing that is not among those given",
        "give the catalogue as it was at the time, with listings that are gone by now; ids are compared byte by byte",
        (checks.WRONG, checks.UNKNOWN),
    )


def _lists(tally: Tally) -> Iterator[Check]:
    choices = tally.choices
    yield rare(
        "positions",
        choices.disordered,
        choices.lists,
        "lists have positions that do not rise",
        "`results` are in the order shown, and `position` counts from 1",
    )
    chosen = choices.positions.total()
    yield common(
        "choices",
        choices.outside,
        choices.outside + chosen,
        "actions that name a list are on a listing that is not in it",
        "name the list that the visitor saw, with all that was shown in it and under the same listing ids",
        (checks.WRONG, checks.UNKNOWN),
    )
    first = choices.positions[1]
    mean = sum(place * count for place, count in choices.positions.items()) / max(1, chosen)
    at_random = choices.expected / max(1, chosen)
    check = common(
        "places",
        first,
        chosen,
        "choices stood first",
        "record the whole list in the order shown, before the choice is known",
        (checks.FIRST, checks.FIRST),
        f"; the mean place is {mean:.1f}, at random it would be {at_random:.1f}",
        checks.ENOUGH,
    )
    if check.status == "pass" and mean >= at_random:
        yield Check(
            what="places",
            status="warn",
            found=check.found,
            todo="who chooses looks at the top first: are `results` in the order in which they were shown?",
            numbers=check.numbers,
        )
    else:
        yield check


def _visits(visits: Visits) -> Iterator[Check]:
    total = visits.lengths.total()
    yield common(
        "visits",
        visits.lengths[1],
        total,
        "visits are of a single action",
        "is the user id the same throughout a visit, and are all clicks recorded?",
        checks.SINGLE,
        f"; half have at most {visits.median_length()}",
        checks.ENOUGH,
    )
    long = sum(length * count for length, count in visits.lengths.items() if length > WINDOWS.events)
    yield common(
        "long visits",
        long,
        visits.actions,
        f"actions are in visits of more than {WINDOWS.events}",
        "a session keeps its newest events: are there user ids that many people share, as `anonymous`?",
        checks.LONG,
    )
    yield common(
        "gaps",
        visits.gaps[0],
        visits.gaps.total(),
        "steps of a visit take no time",
        "are times rounded, to days or hours? Order within a visit, and how long somebody stayed, are lost",
        checks.SAME_TIME,
        f"; half take at most {visits.median_gap() / 1000:,.0f} s",
        checks.ENOUGH,
    )
    users = f"{len(visits.robots):,} " if visits.examples else ""
    examples = f" ({', '.join(map(repr, visits.examples))})" if visits.examples else ""
    yield rare(
        "robots",
        visits.robot_actions,
        visits.actions,
        f"actions are by {users}users who do {FAST} and more at over one a second, "
        f"or go on for {AWAKE // HOUR} hours without a pause{examples}",
        "leave these users out of what is learned from, and out of the topic",
        limit=checks.ROBOTS,
    )


def _markets(tally: Tally) -> Check:
    of, several = tally.listings.count()
    check = common(
        "markets",
        several,
        of,
        "listings stand in more than one market",
        "`market` is where the listing is, not where the visitor looked",
        (checks.WRONG, 1.0),
    )
    if not of:
        return Check(what="markets", status="skip", found="no event names a market")
    if check.status == "pass" and tally.with_market < tally.actions:
        found = f"{tally.with_market:,} of {tally.actions:,} actions name their market; {check.found}"
        return Check(what="markets", status="pass", found=found, numbers=check.numbers)
    return check


def _prices(what: str, prices: Prices) -> Check:
    known = prices.rounded.total() + prices.free
    if not known:
        return Check(what=what, status="skip", found="no prices")
    low, middle, high = prices.lowest if prices.rounded else 0.0, prices.median(), prices.highest
    found = f"{_amount(low)} to {_amount(high)}, half at most {_amount(middle)}"
    numbers = {"lowest": low, "median": middle, "highest": high, "free": prices.free, "known": known}
    if high > checks.SPREAD * low:
        todo = "are these of one currency, and none in cents? Give all in one"
        return Check(what=what, status="warn", found=found, todo=todo, numbers=numbers)
    if prices.free > checks.WRONG * known:
        found = f"{prices.free:,} of {known:,} are 0; {found}"
        todo = "leave out a price that is not known: 0 is a price too"
        return Check(what=what, status="warn", found=found, todo=todo, numbers=numbers)
    return Check(what=what, status="pass", found=found, numbers=numbers)


def _amount(price: float) -> str:
    """A price as prices are written: to the hundredth, where it is not below one."""
    if not 1 <= price < 1e15:
        return f"{price:.3g}"
    return f"{price:,.2f}".removesuffix(".00")


def _first(tally: Tally, reason: str) -> str:
    found = tally.first_errors.get(reason)
    return f" (first {found})" if found else ""
