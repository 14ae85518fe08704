"""The offline protocol: every recorded search whose choice is known, ranked with only what came before it.

The choice is the first listing clicked or booked from the search's results. Records are applied in their partitions'
order by the worker's own machine, and ranked by the sidecar's own function, so what is measured is what serves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from models import rank as rank_
from models.bundle import Bundle
from models.evaluation import baselines, confidence, mrr, significance
from models.evaluation.counters import Counters
from models.evaluation.ranks import rank_of
from models.events import Booking, Click, Event, EventError, Search, decode
from models.offline import BATCH, STEP, Offline, placed
from models.rank import Candidate
from models.recording import Record, read
from models.visitor import Visitor

OWN = "insession"
Targets = ("all", "seen", "unseen")


@dataclass(frozen=True, slots=True)
class Choice:
    """A recorded search whose choice is known, and what was known of its user just before it."""

    search: Search
    record: int
    """The search's place among the recording's records, from 0."""
    candidates: list[Candidate]
    """In the caller's order."""
    positions: list[int]
    """Where each candidate was shown, from 1."""
    chosen: int
    """The index of the chosen listing among the candidates."""
    visitor: Visitor | None


@dataclass(frozen=True, slots=True)
class Scored:
    """A choice with the rankings that are compared. Orders are indices into the candidates, best first."""

    choice: Choice
    seen: bool
    """The chosen listing was acted on in the open session before the search."""
    orders: dict[str, list[int]]
    """By name: shown, seen-first, counters where that was learned, insession."""
    outcome: str


def records(path: str | PathLike[str]) -> Iterator[tuple[int, Record, Event | None]]:
    """The records of a recording with their partitions and their events; None where one is unreadable."""
    header, recorded = read(path)
    for record in placed(recorded, header.partitions):
        try:
            event = decode(record.value, record.key)
        except EventError:
            event = None
        yield record.partition or 0, record, event


def choices(
    path: str | PathLike[str],
    bundle: Bundle | None,
    *,
    since: int = 0,
    until: int | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Choice]:
    """The searches of a recording whose choice is known, dated `since` <= timestamp < `until` (ms)."""
    chosen = _chosen(path, until)
    offline = Offline(bundle, lambda number, changes: None)
    for place, (number, record, event) in enumerate(records(path)):
        if place % STEP == 0:
            on_progress(place)
        if place % BATCH == 0:
            offline.flush()
        if event is not None and not _within(event.timestamp, until):
            continue
        if isinstance(event, Search) and event.timestamp >= since:
            listing = chosen.pop((event.user_id, event.search_id or event.event_id), None)
            if listing is not None and any(result.listing_id == listing for result in event.results):
                visitor = offline.partition(number).visitor(event.user_id)
                yield _choice(event, place, listing, visitor)
        offline.apply(record)


def _within(timestamp: int, until: int | None) -> bool:
    return until is None or timestamp < until


def _chosen(path: str | PathLike[str], until: int | None) -> dict[tuple[str, str], str]:
    """The listing first clicked or booked from each search, by user and search id."""
    chosen: dict[tuple[str, str], str] = {}
    for _, _, event in records(path):
        if isinstance(event, Click | Booking) and event.search_id and _within(event.timestamp, until):
            chosen.setdefault((event.user_id, event.search_id), event.listing_id)
    return chosen


def _choice(search: Search, place: int, listing: str, visitor: Visitor | None) -> Choice:
    """The caller's order is by `caller_position` where the search was re-ranked, and as shown where not."""
    results = sorted(search.results, key=lambda result: result.caller_position or result.position)
    candidates = [Candidate(result.listing_id, result.caller_score) for result in results]
    chosen = next(index for index, result in enumerate(results) if result.listing_id == listing)
    return Choice(search, place, candidates, [result.position for result in results], chosen, visitor)


def rerank(choice: Choice, bundle: Bundle, counters: Counters | None = None) -> Scored:
    """The choice with the list as shown, the most recently seen first, what counters alone give, and ours."""
    search, visitor = choice.search, choice.visitor
    session = visitor.session(search.timestamp) if visitor is not None else None
    ranked = rank_.rank(bundle, visitor, choice.candidates, timestamp=search.timestamp)
    return Scored(
        choice,
        choice.candidates[choice.chosen].listing_id in baselines.acted_on(session),
        {
            "shown": baselines.shown(choice.positions),
            "seen-first": baselines.seen_first(choice.candidates, choice.positions, session),
            **({"counters": counters.order(choice)} if counters is not None else {}),
            OWN: ranked.order.tolist(),
        },
        ranked.outcome,
    )


def report(scored: Sequence[Scored], random: np.random.Generator) -> dict[str, Any]:
    """The table: for each ranking and kind of target n, MRR and mean rank with their 95% intervals over users, and how
    far its MRR is above the best other ranking that is simple, with the p-value of that."""
    results = []
    names = list(scored[0].orders) if scored else []
    for name in names:
        for targets in Targets:
            chosen = [one for one in scored if targets == "all" or one.seen is (targets == "seen")]
            row: dict[str, Any] = {"name": name, "targets": targets, "n": len(chosen)}
            if chosen:
                ranks = {
                    each: [rank_of(one.choice.chosen, one.orders[each]) for one in chosen] for each in names
                }
                users = [one.choice.search.user_id for one in chosen]
                reciprocal = {each: mrr.reciprocal(ranks[each]) for each in names}
                row["mrr"] = float(reciprocal[name].mean())
                row["mrr_ci"] = list(confidence.interval(reciprocal[name], users, random))
                row["mean_rank"] = float(np.mean(ranks[name]))
                row["mean_rank_ci"] = list(confidence.interval(ranks[name], users, random))
                row["versus"] = _versus(name, reciprocal, users, random)
            else:
                row |= {"mrr": None, "mrr_ci": None, "mean_rank": None, "mean_rank_ci": None, "versus": None}
            results.append(row)
    return {"n": len(scored), "results": results}


def _versus(
    name: str, reciprocal: dict[str, npt.NDArray[np.float64]], users: list[str], random: np.random.Generator
) -> dict[str, Any]:
    """The best of the other simple rankings, how far the MRR is above it, and the p-value by exchanges over users."""
    others = [each for each in reciprocal if each not in (name, OWN)]
    best = max(others, key=lambda each: float(reciprocal[each].mean()))
    difference = reciprocal[name] - reciprocal[best]
    codes = np.unique(users, return_inverse=True)[1]
    sums = np.bincount(codes, difference).astype(np.float64)
    [p] = significance.p_values(sums[:, None], random)
    return {"baseline": best, "difference": float(difference.mean()), "p": p}
