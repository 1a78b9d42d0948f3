"""Traffic: clients that keep asking until they are told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import aiohttp

from support.traffic.client import ask
from support.traffic.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from support.traffic.records import Request

MAX_REQUESTS: Final = 200_000
MAX_SECONDS: Final = 3600.0
_QUESTIONS: Final = (
    "Plan a day in Beijing for me.",
    "Where do I see the sunrise on the Great Wall?",
    "Which museum is worth a rainy afternoon?",
    "I have two hours before my train, what do I do?",
    "Recommend a dinner near the Drum Tower.",
)


class Traffic:
    """Streaming chat completions against one gateway: ``async with Traffic(...) as traffic``.

    Either ``rate`` requests a second (open loop: a slow answer delays no later request) or
    ``concurrency`` clients, each asking again once it is answered (closed loop). Leaving the
    block starts no further request and reads those in flight to their end.

    Requests are sent once and never retried, so that every failure is seen. It stops by itself
    after ``max_requests`` and ``max_seconds``, and asks loopback addresses only.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        rate: float | None = None,
        concurrency: int | None = None,
        path: str = "/v1/chat/completions",
        max_tokens: int = 24,
        headers: Mapping[str, str] | None = None,
        request_timeout_s: float = 180.0,
        max_requests: int = MAX_REQUESTS,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        """Describe the traffic. Raises ValueError for a target that is not on loopback."""
        if (rate is None) == (concurrency is None):
            raise ValueError("give either rate (requests/s) or concurrency (clients)")
        if rate is not None and rate <= 0:
            raise ValueError(f"rate is {rate}: it must be above 0 requests/s")
        _require_loopback(url)
        self._url = url.rstrip("/") + path
        self._model = model
        self._rate = rate
        self._concurrency = concurrency
        self._max_tokens = max_tokens
        self._headers = headers
        self._request_timeout_s = request_timeout_s
        self._max_requests = max_requests
        self._max_seconds = max_seconds
        self._numbers = 0
        self._finished: dict[int, Request] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._marked = 0
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._loops: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        loop = asyncio.get_running_loop()
        if self._concurrency is None:
            runs = [self._open_loop()]
        else:
            runs = [self._client() for _ in range(self._concurrency)]
        self._loops = [loop.create_task(run, name="traffic") for run in runs]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Start no further request, and wait for those in flight (at most their time limit)."""
        self._stopping.set()
        await asyncio.gather(*self._loops)
        await asyncio.gather(*self._running)
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def sent(self) -> int:
        """How many requests have begun."""
        return self._numbers

    @property
    def requests(self) -> list[Request]:
        """All finished requests, by start."""
        return [self._finished[number] for number in sorted(self._finished)]

    @property
    def failures(self) -> list[Request]:
        """All finished requests that are no complete answer."""
        return [request for request in self.requests if not request.ok]

    def mark(self) -> None:
        """Begin a new window: it holds the requests that start from now on."""
        self._marked = self._numbers

    def window(self, since: float | None = None) -> Window:
        """Finished requests that started since ``mark``, or since a time of the loop's clock.

        While requests are in flight, a slower version is a little behind in it;
        ``until_answers`` waits for all of its requests and has no such bias.
        """
        if since is not None:
            return Window([request for request in self.requests if request.start >= since])
        return Window([request for request in self.requests if request.number >= self._marked])

    async def until_answers(self, count: int, timeout_s: float = 180.0) -> Window:
        """Mark, and wait for the next ``count`` requests, answered or failed.

        Raises TimeoutError with what was seen when they have not all ended in time.
        """
        self.mark()
        wanted = range(self._marked, self._marked + count)
        await self._until(lambda: all(number in self._finished for number in wanted), timeout_s)
        return Window([self._finished[number] for number in wanted])

    async def until_answered_by(self, name: str, timeout_s: float = 180.0) -> None:
        """Mark, and return once a version or an adapter has answered a request that came later."""
        self.mark()
        await self._until(lambda: self.window().share(name) > 0, timeout_s)

    async def until_only(self, name: str, count: int, timeout_s: float = 180.0) -> None:
        """Return once a version or an adapter alone has answered ``count`` requests running.

        For what no acknowledgement tells: when a picker has taken in another target.
        """
        async with asyncio.timeout(timeout_s):
            while (await self.until_answers(count, timeout_s)).shares() != {name: 1.0}:
                pass

    async def _until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            window = self.window()
            raise TimeoutError(
                f"{window.total} answers and {len(window.failures)} failures in {timeout_s:g} s "
                f"at {self._url}, {len(self._running)} in flight; last failure: "
                f"{window.failures[-1] if window.failures else 'none'}"
            ) from None

    async def _open_loop(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._rate is not None
        interval = 1 / self._rate
        due = begun = loop.time()
        while self._may_start(begun):
            task = loop.create_task(self._one(self._next()))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            due += interval
            await self._pause(due - loop.time())

    async def _client(self) -> None:
        begun = asyncio.get_running_loop().time()
        while self._may_start(begun):
            number = self._next()
            await self._one(number)
            if not self._finished[number].ok:
                # A gateway that refuses at once must not be hammered.
                await self._pause(0.1)

    async def _pause(self, seconds: float) -> None:
        """Let time pass, less when the traffic stops."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _may_start(self, begun: float) -> bool:
        age = asyncio.get_running_loop().time() - begun
        return (
            not self._stopping.is_set()
            and self._numbers < self._max_requests
            and age < self._max_seconds
        )

    def _next(self) -> int:
        number = self._numbers
        self._numbers += 1
        return number

    async def _one(self, number: int) -> None:
        assert self._session is not None
        self._finished[number] = await ask(
            self._session,
            self._url,
            self._body(number),
            number=number,
            timeout_s=self._request_timeout_s,
            headers=self._headers,
        )
        self._changed.set()

    def _body(self, number: int) -> dict[str, Any]:
        question = f"{_QUESTIONS[number % len(_QUESTIONS)]} (question {number})"
        return {
            "model": self._model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": self._max_tokens,
            "stream": True,
        }


def _require_loopback(url: str) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if parts.scheme != "http" or not loopback:
        raise ValueError(f"{url} is no http://127.x.y.z:port: traffic stays on this machine")
