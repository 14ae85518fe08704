"""Who holds which partitions."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable
from math import inf
from urllib.parse import urljoin, urlsplit

import msgspec

from .partition import partition_of
from .problems import UNREADABLE
from .sidecars import Sidecar, address
from .steps import Attempt, Steps

ROUTES_SECONDS = 60.0
"""How long it is trusted who holds which partitions, where nobody says otherwise,"""
MISSING_SECONDS = 5.0
"""and where some sidecar did not say."""


class Partitions(msgspec.Struct):
    """As it comes over the wire."""

    partitions: int
    held: list[int]
    peers: dict[str, list[int]] = {}


_decode = msgspec.json.Decoder(Partitions).decode


class Routes:
    """The sidecars that were listed, those that they name, and whose partitions are where."""

    def __init__(self, urls: Iterable[str]) -> None:
        self._listed = [Sidecar(address(url)) for url in urls]
        if not self._listed:
            raise ValueError("there must be a sidecar's address, a http:// or https:// URL")
        self._others: dict[str, Sidecar] = {}
        """Those that a sidecar named, by address."""
        self._holders: dict[int, list[Sidecar]] = {}
        self._partitions = 0
        self._asked_at = -inf
        """When it was last asked who holds what,"""
        self._until = inf if len(self._listed) == 1 else -inf
        """and how long that is believed. A single one is taken to hold all until it says otherwise."""
        self._turn = itertools.count()

    @property
    def sidecars(self) -> list[Sidecar]:
        return [*self._listed, *self._others.values()]

    def learn(self, until: float) -> Steps[None]:
        """Ask who holds which partitions, where that is not known."""
        now = time.monotonic()
        if now < self._until:
            return
        self._asked_at = now
        self._until = now + MISSING_SECONDS  # other threads go on with what is known
        holders: dict[int, list[Sidecar]] = {}
        peers: dict[int, list[Sidecar]] = {}
        silent = False
        for sidecar in self._listed:
            now = time.monotonic()
            # None may take what the others need.
            part = now + max(0.0, until - now) / 2
            said = (yield from _partitions(sidecar, part)) if sidecar.open(now) else None
            if said is None:
                silent = True
                continue
            silent = silent or not said.partitions  # it has not reached its broker yet
            self._partitions = said.partitions or self._partitions
            for number in said.held:
                holders.setdefault(number, []).append(sidecar)
            for url, numbers in said.peers.items():
                peer = self._at(url)
                if peer is not None:
                    for number in numbers:
                        peers.setdefault(number, []).append(peer)
        # Peers may be listed ones under another name: they are only for what nobody says to hold.
        before = self._holders if silent else {}
        self._holders = {**peers, **before, **holders}
        if not silent:
            self._until = time.monotonic() + ROUTES_SECONDS

    def doubt(self) -> None:
        """What is known is wrong, or the user's events are not where Kafka's default puts them."""
        self._until = min(self._until, self._asked_at + MISSING_SECONDS)

    def holding(self, user_id: str | None, partition: int | None) -> list[Sidecar]:
        """Those that hold the user's partition, as far as is known, else all that were listed."""
        if partition is None and user_id is not None and self._partitions:
            partition = partition_of(user_id, self._partitions)
        return (self._holders.get(partition) if partition is not None else None) or self._listed

    def in_turn(self, user_id: str | None, partition: int | None) -> deque[Sidecar]:
        """The same in the order in which to ask them now."""
        waiting = deque(self.holding(user_id, partition))
        waiting.rotate(next(self._turn) % len(waiting))
        return waiting

    def named(self, by: Sidecar, location: str, route: str) -> Sidecar | None:
        """Whom a redirect of a request to this route names; None where that is nobody."""
        try:
            url = urljoin(by.url, location)
            parts = urlsplit(url)
        except ValueError:
            return None
        base, found, _ = parts.path.partition(route)
        return self._at(f"{parts.scheme}://{parts.netloc}{base}") if found else None

    def _at(self, url: str) -> Sidecar | None:
        """The sidecar at an address that another one gave."""
        try:
            url = address(url)
        except ValueError:
            return None
        known = next((each for each in self._listed if each.url == url), None)
        return known or self._others.setdefault(url, Sidecar(url))


def _partitions(sidecar: Sidecar, until: float) -> Steps[Partitions | None]:
    """What the sidecar holds; None where it does not say."""
    reply = yield Attempt(sidecar, "GET", "/v1/partitions", None, until)
    try:
        said = _decode(reply.body) if reply.status == 200 else None
    except UNREADABLE:
        said = None
    if said is None:
        sidecar.failed(time.monotonic())
    else:
        sidecar.answered()
    return said
