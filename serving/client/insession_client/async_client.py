"""Asks sidecars from asyncio's tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from .answers import Ranking, Recommendation, SimilarListings
from .asking import Asking
from .questions import Candidate, Request
from .questions import candidates as as_candidates
from .steps import Attempt, Reply, Steps, left

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")


class AsyncClient(Asking):
    """Asks sidecars with asyncio. Needs aiohttp (`pip install 'insession-client[async]'`)."""

    def __init__(
        self,
        urls: str | Iterable[str],
        *,
        token: str | None = None,
        timeout: float = 0.05,
        on_away: Callable[[str], object] | None = None,
    ) -> None:
        """As `Client` has them."""
        import aiohttp  # noqa: F401, here where nobody waits: it takes longer than a call may

        super().__init__(urls, token, timeout, on_away)
        self._session: aiohttp.ClientSession | None = None

    async def rank(
        self,
        user_id: str,
        candidates: Sequence[Candidate | str],
        *,
        timestamp: int | None = None,
        min_offset: int | None = None,
        partition: int | None = None,
        deadline_ms: int | None = None,
        explain: bool = False,
        market: str | None = None,
        extend: int = 0,
        diversity: float = 0.0,
        timeout: float | None = None,
    ) -> Ranking:
        """As `Client.rank`."""
        request = Request(
            user_id=user_id,
            candidates=as_candidates(candidates),
            timestamp=timestamp,
            min_offset=min_offset,
            partition=partition,
            deadline_ms=deadline_ms,
            explain=explain,
            market=market,
            extend=extend,
            diversity=diversity,
        )
        return await self._run(self._rank(request, timeout))

    async def rank_batch(self, requests: Sequence[Request], *, timeout: float | None = None) -> list[Ranking]:
        """As `Client.rank_batch`."""
        return await self._run(self._rank_batch(requests, timeout))

    async def recommend(
        self,
        user_id: str,
        *,
        k: int = 10,
        market: str | None = None,
        exclude_seen: bool = False,
        timestamp: int | None = None,
        min_offset: int | None = None,
        partition: int | None = None,
        explain: bool = False,
        timeout: float | None = None,
    ) -> Recommendation:
        """As `Client.recommend`."""
        question = {
            "k": k,
            "market": market,
            "exclude_seen": exclude_seen,
            "timestamp": timestamp,
            "min_offset": min_offset,
            "partition": partition,
            "explain": explain,
        }
        return await self._run(self._recommend(user_id, question, timeout))

    async def similar(
        self,
        listing_id: str,
        *,
        k: int = 10,
        market: str | None = None,
        user_id: str | None = None,
        exclude_seen: bool = False,
        timeout: float | None = None,
    ) -> SimilarListings:
        """As `Client.similar`."""
        question = {
            "k": k,
            "market": market,
            "user_id": user_id,
            "exclude_seen": "true" if exclude_seen else None,
        }
        return await self._run(self._similar(listing_id, question, timeout))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        try:
            attempt = next(steps)
            while True:
                attempt = steps.send(await self._send(attempt))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _send(self, attempt: Attempt) -> Reply:
        import aiohttp
        import yarl

        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        again = True
        while True:
            try:
                # As it is: what is encoded would be made a plain path else, without `..`.
                url = yarl.URL(attempt.sidecar.url + attempt.path, encoded=True)
                async with self._session.request(
                    attempt.method,
                    url,
                    data=attempt.body,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=left(attempt.until)),
                ) as response:
                    body = await response.read()
                    return Reply(response.status, body, response.headers.get("location", ""))
            except (aiohttp.ClientError, OSError, ValueError) as error:
                if again and _was_idle(error):
                    again = False
                    continue
                return Reply(0, str(error or type(error).__name__).encode(errors="replace"))


def _was_idle(error: Exception) -> bool:
    """Whether a connection broke that may have been closed while it was idle, and not one that could not be made."""
    import aiohttp

    return isinstance(
        error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError
    ) and not isinstance(error, aiohttp.ClientConnectorError)
