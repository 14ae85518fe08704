"""Where, among a visit's candidates, the listing stands that is booked in the end, so many clicks before it.

Airbnb's figure (Grbovic and Cheng, "Real-time personalization using embeddings for search ranking at Airbnb", KDD 2018,
section 4.2): at each click the candidates are ordered by the cosine of their vectors and the clicked listing's, and the
rank of the booked one is averaged by how many clicks before the booking that was. Candidates are what the visit's
searches had shown before the booking. The clicked listing is none at its own click, and a click on the booked listing
is passed over: either would be nearest to itself whatever the vectors are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.evaluation import confidence, significance
from models.events import Booking, Click, Event, Forget, Search
from models.sessions import WINDOWS

MOST = 17
"""The clicks before a booking that are looked at, as in the figure."""
STEP = 10_000
"""Events between two looks at the progress."""
SHOWN = "shown"

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Booked:
    """A visit up to its first booking."""

    listing: str
    time: int
    candidates: tuple[str, ...]
    """What its searches had shown, in the order of the highest places, of equals what was shown first."""
    clicks: tuple[str, ...]
    """The clicks on other listings before it, the last one last."""


def bookings(
    events: Iterable[Event], *, since: int = 0, on_progress: Callable[[int], None] = lambda done: None
) -> list[Booked]:
    """The first booking of each visit, dated `since` or later (ms), that was shown in the visit after a click on another
    listing, in the order of users and times. A visit ends where the user was silent for the windows' gap."""
    users: dict[str, list[Search | Click | Booking]] = {}
    forgotten: dict[str, int] = {}
    for done, event in enumerate(events):
        if done % STEP == 0:
            on_progress(done)
        if isinstance(event, Search | Click | Booking):
            users.setdefault(event.user_id, []).append(event)
        elif isinstance(event, Forget):
            forgotten[event.user_id] = max(event.timestamp, forgotten.get(event.user_id, -1))
    found = []
    for user in sorted(users):
        after = forgotten.get(user, -1)
        kept = [event for event in users[user] if event.timestamp > after]
        found += _of_user(sorted(kept, key=lambda event: (event.timestamp, event.event_id)))
    return [one for one in found if one.time >= since]


def _of_user(events: Sequence[Search | Click | Booking]) -> list[Booked]:
    found = []
    best: dict[str, int] = {}
    clicks: list[str] = []
    last, booked = 0, False
    for event in events:
        if event.timestamp - last > WINDOWS.gap:
            best, clicks, booked = {}, [], False
        last = event.timestamp
        if booked:
            continue
        if isinstance(event, Search):
            for result in event.results:
                best[result.listing_id] = min(result.position, best.get(result.listing_id, result.position))
        elif isinstance(event, Click):
            clicks.append(event.listing_id)
        else:
            booked = True
            others = tuple(listing for listing in clicks if listing != event.listing_id)
            if event.listing_id in best and others:
                candidates = tuple(sorted(best, key=best.__getitem__))
                found.append(Booked(event.listing_id, event.timestamp, candidates, others))
    return found


def ranks(booked: Booked, bundle: Bundle | None) -> list[int]:
    """The rank of the booked listing, from 1, at the last click before the booking, the last but one, and so on, at most
    MOST; as shown where there is no bundle.

    Candidates of equal cosine stand as shown; those without a vector come last, and all stand as shown where the
    clicked listing has none.
    """
    shown = {listing: place for place, listing in enumerate(booked.candidates)}
    place = shown[booked.listing]
    made = []
    for clicked in booked.clicks[: -MOST - 1 : -1]:
        if bundle is None or (query := _vector(bundle, clicked)) is None:
            made.append(place + 1 - (shown.get(clicked, place) < place))
            continue
        scores = _scores(bundle, booked.candidates, query)
        if clicked in shown:
            scores[shown[clicked]] = -np.inf
        own = scores[place]
        better = scores > own
        better[:place] |= scores[:place] == own
        if clicked in shown:
            better[shown[clicked]] = False
        made.append(int(better.sum()) + 1)
    return made


def _vector(bundle: Bundle, listing: str) -> npt.NDArray[np.float32] | None:
    row = bundle.row.get(listing, -1)
    return bundle.vectors[row] if row >= 0 and bundle.vectors[row].any() else None


def _scores(bundle: Bundle, candidates: Sequence[str], query: npt.NDArray[np.float32]) -> Floats:
    rows = np.array([bundle.row.get(listing, -1) for listing in candidates], np.int64)
    vectors = bundle.vectors[rows]
    known = (rows >= 0) & vectors.any(axis=1)
    return np.where(known, (vectors * query).sum(axis=1, dtype=np.float64), -np.inf)


def report(
    found: Sequence[Booked],
    bundles: dict[str, Bundle],
    seed: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """For the list as shown and each bundle: the mean rank with its 95 % interval over visits, the curve by clicks before
    the booking from MOST to 1, and for bundles the paired comparison with the list as shown (below 0: nearer the top)."""
    names = [SHOWN, *bundles]
    cells: list[list[int]] = []
    visits: list[int] = []
    before: list[int] = []
    for visit, booked in enumerate(found):
        on_progress(visit)
        by_name = [ranks(booked, bundle) for bundle in (None, *bundles.values())]
        for clicks, row in enumerate(zip(*by_name, strict=True), 1):
            cells.append(list(row))
            visits.append(visit)
            before.append(clicks)
    values, visit_of, clicks_of = np.array(cells, np.float64), np.array(visits), np.array(before)
    sums, counts = confidence.sums(values, visit_of)
    means = confidence.resampled(sums, counts, np.random.default_rng([seed, 1]))
    intervals = confidence.percentiles(means)
    apart = confidence.percentiles(means - means[:, :1])
    ps = significance.p_values(sums - sums[:, :1], np.random.default_rng([seed, 2]))
    overall = values.mean(axis=0).tolist()
    curves = _curves(values, visit_of, clicks_of, seed)
    results: list[dict[str, Any]] = []
    for at, name in enumerate(names):
        result: dict[str, Any] = {"name": name, "mean_rank": overall[at], "ci": list(intervals[at])}
        if name != SHOWN:
            difference = overall[at] - overall[0]
            result["versus"] = {"name": SHOWN, "difference": difference, "ci": list(apart[at]), "p": ps[at]}
        results.append(result | {"curve": [point[at] for point in curves]})
    candidates = float(np.mean([len(booked.candidates) for booked in found]))
    return {"n": len(found), "clicks": len(values), "candidates": candidates, "results": results}


def _curves(values: Floats, visits: Ints, clicks: Ints, seed: int) -> list[list[dict[str, Any]]]:
    """For each number of clicks before the booking that occurs, from MOST to 1, a point for each column."""
    points = []
    for number in range(MOST, 0, -1):
        here = clicks == number
        if not here.any():
            continue
        intervals = confidence.intervals(values[here], visits[here], np.random.default_rng([seed, 1]))
        columns = zip(values[here].mean(axis=0).tolist(), intervals, strict=True)
        points.append(
            [
                {"clicks_before": number, "n": int(here.sum()), "mean_rank": mean, "ci": list(interval)}
                for mean, interval in columns
            ]
        )
    return points
