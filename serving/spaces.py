"""The bundles that answer, and the users' vectors in their spaces: the one in use, those of variants, and the next one
before it is switched to.

Records get their vectors as they are read; what stood in the store before gets them here, between two polls of the
follower's, a slice at a time.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence

from models.bundle import Bundle
from models.listings import decode_record
from models.states import user_key
from models.store import Store, StoreError, following
from models.topics import Topics
from serving import vectors
from serving.metrics import Metrics
from serving.standing import Changes, Standing

SLICE_SECONDS = 0.002
"""Of work between two polls, and the most the next poll waits while there is some: half of the time is the requests'."""
SLICE = 50
"""Users or listings that are looked at at once."""
LEAVING_SECONDS = 15.0
"""How long the vectors of the bundle before are kept: longer than a request may wait."""

_Offer = tuple[Bundle, Callable[[Bundle], object]]
log = logging.getLogger("insession.follower")


def listing_key(listing: bytes) -> bytes:
    """The store's key of a record of `listings`."""
    return b"l" + listing


class Spaces:
    """Belongs to the follower's thread, but for `take`."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        topics: Topics,
        bundles: Sequence[Bundle],
        shadow: Bundle | None,
        *,
        full: Callable[[], Standing | None],
        stands: Callable[[str], Changes],
        post: Callable[..., None],
        refused: Callable[[str], object],
        idle: Callable[[Bundle], Iterator[None] | None],
    ) -> None:
        """The first of `bundles` is in use, until `take` gives another one; those of variants stay.

        `full` says what the store stands for, None while it is being filled; `stands` is what to write so that it
        does, to a bundle's name where all vectors of that have been brought. What is `post`ed is called in the event
        loop; `refused` is told why a bundle is. `idle` is what else there is to do for the one in use, if anything.
        """
        self.bundle = bundles[0]
        self._beside = tuple(bundles[1:])
        self._shadow = shadow
        self._next: Bundle | None = None
        """Is being brought up beside the one in use."""
        self._offered: _Offer | None = None
        self._taken: _Offer | None = None
        """The one that `_next` is of."""
        self._work: Iterator[None] | None = None
        self._leaving: float | None = 0.0
        """From when on nobody needs the vectors of other bundles; at the start there may be those of an earlier one."""
        self._store = store
        self._metrics = metrics
        self._topics = topics
        self._full, self._stands, self._post, self._refused = full, stands, post, refused
        self._idle = idle

    def take(self, bundle: Bundle, switch: Callable[[Bundle], object]) -> None:
        """Bring up another bundle beside the one in use, then call `switch` with it. For any thread; a later one is taken in its place."""
        self._offered = bundle, switch

    def begin_again(self) -> None:
        """The store is another one now: what is being brought up is so from its beginning."""
        self._work = None
        if self._offered is None:
            self._offered = self._taken

    def work(self) -> bool:
        """Do a slice of the work there is besides reading; whether there is more."""
        if self._offered is not None:
            self._taken, self._offered = self._offered, None
            self._next, switch = self._taken
            self._work = self._bring_up(self._next, switch)
        elif self._leaving is not None and self._full() is not None and time.monotonic() > self._leaving:
            self._leave()
        elif self._work is None:
            lacking = next(filter(self.lacks, self.bundles), None)
            self._work = self._vectors(lacking) if lacking is not None else self._idle(self.bundle)
        if self._work is None:
            return False
        until = time.monotonic() + SLICE_SECONDS
        while time.monotonic() < until:
            try:
                next(self._work)
            except StopIteration:
                self._work = None
                return False
            except Exception as error:
                self._work = None
                if self._next is None or isinstance(error, StoreError):
                    raise
                self._refuse(self._next)
                return False
        return True

    def _refuse(self, new: Bundle) -> None:
        """Go on without the bundle that can't be brought up. Called where that is handled."""
        log.exception("the bundle %s can't be brought up, the old one stays", new.name)
        self._metrics.refused.inc()
        self._refused(f"the bundle {new.name} can't be brought up; see the log")
        self._next = self._taken = None

    def announce(self, key: bytes, value: bytes | None) -> None:
        try:
            listing_id, listing = decode_record(key, value)
            for bundle in self.bundles:
                bundle.announce(listing_id, listing)
            if self._shadow is not None:
                self._shadow.announce(listing_id, listing)
        except Exception as error:  # whatever it is: one record is not to stop the following
            self._metrics.unreadable.labels(self._topics.listings).inc()
            log.warning("%s: a listing that can't be read, %r: %s", self._topics.listings, key, error)

    def listings(self) -> Iterator[tuple[bytes, bytes]]:
        """The keys and records of the listings in the store."""
        for key, value in self._store.items(listing_key(b""), following(listing_key(b""))):
            yield key[1:], value

    @property
    def bundles(self) -> list[Bundle]:
        """Those that answer users, or are about to; a name may stand there twice."""
        return [self.bundle, *self._beside, *([self._next] if self._next is not None else [])]

    def _bring_up(self, new: Bundle, switch: Callable[[Bundle], object]) -> Iterator[None]:
        """Announce to a new bundle what was announced before, give users vectors of it, and have it switched to."""
        for some in self._store.slices(listing_key(b""), SLICE):
            for key, value in some:
                with contextlib.suppress(Exception):  # it was told of when it came
                    new.announce(*decode_record(key[1:], value))
            yield
        if self.lacks(new):
            yield from self._vectors(new)
        self.bundle, self._next, self._taken = new, None, None
        self._leaving = time.monotonic() + LEAVING_SECONDS
        self._post(switch, new)

    def _vectors(self, bundle: Bundle) -> Iterator[None]:
        """Give every user whose record's vector is of another bundle one of this bundle."""
        space, done = vectors.space(bundle.name), 0
        for some in self._store.slices(user_key(b""), SLICE):
            made = {space + key[1:]: vectors.read(bundle, value, self.unreadable) for key, value in some}
            changes = {key: vector for key, vector in made.items() if vector is not None}
            self._store.write(changes)
            done += len(changes)
            yield
        log.info("%d users' vectors computed for the bundle %s", done, bundle.name)
        self._metrics.recomputed.inc(done)
        self._store.write(self._stands(bundle.name))

    def lacks(self, bundle: Bundle) -> bool:
        """Whether users may lack vectors of the bundle; not asked of a store that is being filled."""
        full = self._full()
        return full is not None and bundle.name not in full.vectors

    def _leave(self) -> None:
        """Drop the vectors of bundles that do not answer any more."""
        self._leaving = None
        self._store.write(self._stands(""))
        kept = sorted({vectors.space(bundle.name) for bundle in self.bundles})
        begin = vectors.PREFIX
        for space in kept:
            self._store.drop(begin, space)
            begin = following(space)
        self._store.drop(begin, following(vectors.PREFIX))

    def unreadable(self) -> None:
        """Count a user's record that can't be read, or of which no vector can be made."""
        self._metrics.unreadable.labels(self._topics.user_embeddings).inc()
