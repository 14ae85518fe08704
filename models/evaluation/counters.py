"""`counters`: a gradient-boosted ranker on what a search service can count by itself: no embeddings, no histories.

LambdaMART (Burges, "From RankNet to LambdaRank to LambdaMART: an overview", 2010) by LightGBM, on counters of the visit, the
place in the list, and the price. It learns on the choices it is given alone, which must be earlier than what it is
measured on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.errors import UserError
from models.sessions import Action, Shown

if TYPE_CHECKING:
    import lightgbm

    from models.evaluation.rerank import Choice

NAMES = (
    "place", "candidates", "times", "clicks", "since", "newest", "below", "shown", "shown_before",
    "visit_actions", "visit_listings", "log_price", "dearer_than_list", "dearer_than_visit",
)  # fmt: skip
"""place: in the list, from 1, of `candidates`. times, clicks: how often the candidate was acted on, and clicked, in the
visit; since: how many other listings were since; newest: it was acted on last. below: how far it is below the listing of
this list that was acted on last. shown: in how many searches of the visit; shown_before: in the one before this.
visit_actions, visit_listings: so many, on so many listings. log_price, and how many times dearer it is than the list's
and the visit's median, as logarithms. What is not known is NaN."""

FEWEST = 50
"""It is learned from at least so many choices."""
ROUNDS = 200
PARAMETERS = {
    "objective": "lambdarank",
    "num_leaves": 15,
    "learning_rate": 0.05,
    "min_data_in_leaf": 20,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
"""Small trees, as there are few searches; written down and not tuned on anything that is reported."""

Floats = npt.NDArray[np.float64]


class Counters:
    """The ranker, learned."""

    def __init__(self, booster: lightgbm.Booster) -> None:
        self._booster = booster

    def order(self, choice: Choice) -> list[int]:
        """Indices into the choice's candidates, best first; of equal ones the higher in the list."""
        scores = np.asarray(self._booster.predict(features(choice)))
        places = choice.positions
        return sorted(range(len(places)), key=lambda at: (-scores[at], places[at]))


def train(matrices: Sequence[Floats], chosen: Sequence[int], seed: int) -> Counters | None:
    """Learned from choices' features, [n, F] each, and which candidate each choice was; None where they are fewer than
    FEWEST. Raises UserError where LightGBM is missing."""
    try:
        import lightgbm
    except ImportError:
        raise UserError("the baseline `counters` needs LightGBM: pip install 'insession[evaluate]'") from None
    if len(matrices) < FEWEST:
        return None
    sizes = np.array([len(matrix) for matrix in matrices])
    labels = np.zeros(sizes.sum())
    labels[np.cumsum(sizes) - sizes + np.array(chosen)] = 1
    values = np.concatenate(matrices)
    data = lightgbm.Dataset(values, labels, group=sizes, feature_name=list(NAMES), params=PARAMETERS)
    return Counters(lightgbm.train(PARAMETERS | {"seed": seed}, data, ROUNDS))


def features(choice: Choice) -> Floats:
    """NAMES of each candidate, float64 [n, F]."""
    session = choice.visitor.session(choice.search.timestamp) if choice.visitor is not None else None
    events = session.events if session is not None else ()
    actions = [event for event in events if isinstance(event, Action) and event.kind != "rejection"]
    acted = list(dict.fromkeys(reversed([action.listing_id for action in actions])))
    age = {listing: number for number, listing in enumerate(acted)}
    times = Counter(action.listing_id for action in actions)
    clicks = Counter(action.listing_id for action in actions if action.kind == "click")
    searches = [event.results for event in events if isinstance(event, Shown)]
    shown = Counter(listing for results in searches for listing in set(results))
    before = set(searches[-1]) if searches else set()
    prices = {result.listing_id: result.price for result in choice.search.results}
    here = [prices[candidate.listing_id] for candidate in choice.candidates]
    middle, visits = _median(here), _median([prices.get(listing) for listing in acted])
    place = {
        candidate.listing_id: at for candidate, at in zip(choice.candidates, choice.positions, strict=True)
    }
    last = next((place[listing] for listing in acted if listing in place), math.nan)
    rows = []
    for candidate, at, price in zip(choice.candidates, choice.positions, here, strict=True):
        listing = candidate.listing_id
        log = math.log(price) if price else math.nan
        rows.append(
            (
                at,
                len(place),
                times[listing],
                clicks[listing],
                age.get(listing, math.nan),
                age.get(listing) == 0,
                at - last,
                shown[listing],
                listing in before,
                len(actions),
                len(acted),
                log,
                log - middle,
                log - visits,
            )
        )
    return np.array(rows, np.float64)


def _median(prices: Sequence[float | None]) -> float:
    """The logarithm of the prices' median; NaN where none is known."""
    known = [price for price in prices if price]
    return math.log(float(np.median(known))) if known else math.nan
