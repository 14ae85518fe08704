"""Asks insession's sidecars to re-rank, from a search service: a list always comes back, the caller's own where no sidecar helps.

    client = Client("http://127.0.0.1:8080")
    ranking = client.rank("ada", ["lisbon-174", "lisbon-093"])
    ranking.listing_ids            # best first
    ranking.event("ada-search-7")  # the `search` event to put on `clicks`

`Client` may be shared by threads; `AsyncClient` does the same with asyncio and needs aiohttp. Make either in the
process that uses it, not before it forks. A sidecar that is away, slow, or fails never raises: the outcome is "away",
`on_away` hears why, and after some failures in a row it is left alone for a while. What the caller got wrong raises
`Refused`. Where several sidecars hold some partitions each, a user's is found by Kafka's hash of the user id.
"""

from .answers import Ranked, Ranking, Recommendation, Recommended, Similar, SimilarListings, State
from .async_client import AsyncClient
from .client import Client
from .partition import partition_of
from .problems import Refused
from .questions import Candidate, Request

__all__ = [
    "AsyncClient",
    "Candidate",
    "Client",
    "Ranked",
    "Ranking",
    "Recommendation",
    "Recommended",
    "Refused",
    "Request",
    "Similar",
    "SimilarListings",
    "State",
    "partition_of",
]
