"""What stands behind the page: a search service with an order of its own, and a producer of the visitor's events."""

from __future__ import annotations

import asyncio
import secrets
import time
import zlib
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from models import events
from models.listings import Listings
from models.topics import Topics
from serving.cluster import Client
from serving.problems import Refused, decode, read
from serving.ranking import Ranking

FOLDER = Path(__file__).parent / "page"
FILES = {"/": "index.html", "/page/page.css": "page.css", "/page/page.js": "page.js"}
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
}
SHOWN = 24
DELIVERY_SECONDS = 5.0
EVERYWHERE = ""
"""The market of a bundle whose listings have none."""

Floats = npt.NDArray[np.float64]


class SearchRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A search in a market."""

    market: str


class Hit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A listing that the search service found, and how to show it."""

    listing_id: str
    score: float
    name: str
    about: list[str]
    hue: int
    """Where its vector lies among its market's, as an angle in degrees: listings that are alike look alike,"""
    chroma: float
    """and how far out, 0 to 1."""
    price: float | None = None


class SearchResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The search service's own order."""

    search_id: str
    candidates: list[Hit]


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """A place to search in."""

    name: str
    listings: int


class Produced(msgspec.Struct, frozen=True, kw_only=True):
    """Where an event came to stand on `clicks`."""

    event_id: str
    partition: int
    offset: int


_searches = msgspec.json.Decoder(SearchRequest)
_objects = msgspec.json.Decoder(dict[Annotated[str, msgspec.Meta(max_length=64)], Any])


class Demo:
    """The page's routes."""

    def __init__(self, ranking: Ranking, client: Client, topics: Topics) -> None:
        self._ranking = ranking
        self._topic = topics.clicks
        self._client = client
        self._producer: Producer | None = None
        self._colours: dict[tuple[str, str], tuple[Floats, Floats]] = {}

    def routes(self) -> list[Route]:
        """The page's files, its search and its events; they are no part of the API."""
        pages = [Route(path, self._file, include_in_schema=False) for path in FILES]
        return [
            *pages,
            Route("/page/markets", self._markets, include_in_schema=False),
            Route("/page/search", self._search, methods=["POST"], include_in_schema=False),
            Route("/page/events", self._events, methods=["POST"], include_in_schema=False),
        ]

    async def _file(self, request: Request) -> Response:
        return FileResponse(FOLDER / FILES[request.url.path], headers=HEADERS)

    async def _markets(self, request: Request) -> Response:
        """The markets, those with the most listings first."""
        listings = self._ranking.bundle.listings
        sizes = np.bincount(
            listings.market_codes[listings.market_codes >= 0], minlength=len(listings.markets)
        )
        markets = [
            Market(name=name, listings=int(size)) for name, size in zip(listings.markets, sizes, strict=True)
        ]
        markets.sort(key=lambda market: -market.listings)
        return _json(markets or [Market(name=EVERYWHERE, listings=len(listings))])

    async def _search(self, request: Request) -> Response:
        market = decode(_searches, await read(request.scope, request.receive)).market
        return _json(SearchResponse(search_id=secrets.token_hex(8), candidates=self._hits(market)))

    async def _events(self, request: Request) -> Response:
        """Put an event on `clicks`. The page says what happened; the time and the event's id are given here."""
        said = decode(_objects, await read(request.scope, request.receive))
        said |= {"event_id": f"page-{secrets.token_hex(8)}", "timestamp": time.time_ns() // 1_000_000}
        value, user = msgspec.json.encode(said), str(said.get("user_id", "")).encode()
        try:
            event = events.decode(value, user)
        except events.EventError as error:
            raise Refused(400, str(error)) from None
        if isinstance(event, events.Tick):
            raise Refused(400, "a tick is no visitor's: it closes the sessions of others", field="$.type")
        try:
            message = await asyncio.to_thread(self._produce, user, value)
        except KafkaException as error:
            raise Refused(503, f"the event was not taken: {error.args[0].str()}") from None
        return _json(
            Produced(
                event_id=said["event_id"],
                partition=int(message.partition() or 0),
                offset=int(message.offset() or 0),
            )
        )

    def _produce(self, key: bytes, value: bytes) -> Message:
        """Produce to `clicks`, and wait until the brokers have it. Raises KafkaException where they have not in time."""
        if self._producer is None:
            self._producer = Producer(
                {
                    **self._client,
                    "partitioner": "murmur2_random",  # where Kafka's own clients put it, and `/v1/rank` looks
                    "linger.ms": 0,
                    "enable.idempotence": True,
                    "message.timeout.ms": int(DELIVERY_SECONDS * 1000),
                    "log_level": 0,
                }
            )
        said: list[tuple[KafkaError | None, Message]] = []
        self._producer.produce(
            self._topic, value, key, on_delivery=lambda error, message: said.append((error, message))
        )
        ends = time.monotonic() + DELIVERY_SECONDS + 1
        while not said and time.monotonic() < ends:
            self._producer.poll(0.01)
        if not said or said[0][0] is not None:
            raise KafkaException(said[0][0] if said else KafkaError(KafkaError._MSG_TIMED_OUT))
        return said[0][1]

    def _hits(self, market: str) -> list[Hit]:
        """The most popular listings of a market. A bundle does not say who is popular: a hash of the id does.

        Those that nobody was seen with, and that have no vector therefore, come after all others.
        """
        bundle = self._ranking.bundle
        listings = bundle.listings
        rows = _rows(listings, market)
        if not len(rows):
            raise Refused(404, "there is no such market", field="$.market")
        popularity = [
            _popularity(listings.ids[row]) if bundle.vectors[row].any() else 0.0 for row in rows.tolist()
        ]
        hues, chromas = self._colour(market, rows)
        best = np.argsort(popularity, kind="stable")[::-1][:SHOWN].tolist()
        return [
            _hit(listings, int(rows[at]), popularity[at], float(hues[at]), float(chromas[at])) for at in best
        ]

    def _colour(self, market: str, rows: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Hue in degrees and chroma in 0..1 of each listing: angle and length in the plane where the market spreads most."""
        bundle = self._ranking.bundle
        key = (bundle.name, market)
        if key not in self._colours:
            centred = bundle.vectors[rows].astype(np.float64)
            has = centred.any(axis=1)
            centred[has] -= centred[has].mean(axis=0) if has.any() else 0.0  # without a vector: grey
            _, _, axes = np.linalg.svd(centred, full_matrices=False)
            plane = np.zeros((len(rows), 2))
            plane[:, : min(2, len(axes))] = centred @ axes[:2].T
            lengths = np.hypot(plane[:, 0], plane[:, 1])
            hues = np.degrees(np.arctan2(plane[:, 1], plane[:, 0])) % 360
            self._colours[key] = hues, lengths / (lengths.max() or 1.0)
        return self._colours[key]


def _rows(listings: Listings, market: str) -> npt.NDArray[np.intp]:
    if not listings.markets and market == EVERYWHERE:
        return np.arange(len(listings))
    if market not in listings.markets:
        return np.empty(0, np.intp)
    return np.flatnonzero(listings.market_codes == listings.markets.index(market))


def _popularity(listing: str) -> float:
    """A number in 0..1 that stays the listing's own: few are popular, most are not."""
    return round(((zlib.crc32(listing.encode()) + 1) / 2**32) ** 3, 4)


def _hit(listings: Listings, row: int, popularity: float, hue: float, chroma: float) -> Hit:
    attributes = dict(listings.attributes(row))
    listing = listings.ids[row]
    name = attributes.pop("name", None)
    about: list[str] = []
    for value in attributes.values():
        about += [str(part) for part in value] if isinstance(value, tuple) else [str(value)]
    kind = listings.type(row)
    name = name if isinstance(name, str) else f"{kind or 'Listing'} {listing}"
    return Hit(
        listing_id=listing,
        score=popularity,
        name=name,
        about=[part for part in about if part not in name][:4],
        hue=round(hue),
        chroma=round(chroma, 3),
        price=listings.price(row),
    )


def _json(answer: object) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
