"""Whose states are here, and who has the others'."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from models.errors import UserError
from models.events import Id
from models.topics import numbers
from serving import api
from serving.problems import Refused
from serving.states import States

Peers = dict[str, frozenset[int]]
"""Which partitions another sidecar holds, by its address."""

_FORM = re.compile(r"(?P<url>https?://[^=?#]+)=(?P<numbers>\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*)")


def parse(texts: Iterable[str]) -> Peers:
    """Peers of `URL=0-3,7`. Raises UserError where they are none."""
    peers: Peers = {}
    for text in texts:
        found = _FORM.fullmatch(text)
        if not found or not urlsplit(found["url"]).netloc:
            raise UserError(f"--peer {text}: give URL=PARTITIONS, as in http://10.0.0.2:8080=0-3,7")
        url = found["url"].rstrip("/")
        try:
            peers[url] = peers.get(url, frozenset()) | numbers(found["numbers"])
        except ValueError as error:
            raise UserError(f"--peer {text}: {error}") from None
    return peers


def describe(states: States, peers: Peers) -> api.Partitions:
    """What `/v1/partitions` says."""
    held = range(states.partitions) if states.held is None else sorted(states.held)
    return api.Partitions(
        partitions=states.partitions,
        held=list(held),
        peers={url: sorted(theirs) for url, theirs in peers.items()},
    )


def elsewhere(states: States, user_id: Id, partition: int | None) -> int | None:
    """The user's partition, given or by Kafka's default, where it is not followed here; None where it is."""
    if states.held is None:
        return None
    number = states.partition(user_id) if partition is None else partition
    return number if number is not None and number not in states.held else None


def redirect(peers: Peers, partition: int, path: str) -> Refused:
    """What a request for a user of this partition is answered with: where to ask, if that is known."""
    detail = f"the users of partition {partition} are not followed here"
    for url, held in peers.items():
        if partition in held:
            headers = {"location": url + path}
            return Refused(307, f"{detail}, but at {url}", partition=partition, headers=headers)
    return Refused(421, f"{detail}; ask a sidecar whose /v1/partitions names it", partition=partition)
