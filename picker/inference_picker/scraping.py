"""Keeps each endpoint's load fresh from its metrics page, over one kept-alive connection each.

A bare protocol rather than an HTTP client: twenty pages every 50 ms are the largest part of an
idle picker's CPU. What is understood is what model servers send: HTTP/1.1 with a length or in
chunks.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Final, Protocol, cast

import structlog

from inference_picker.engines import PageReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_picker.pool import PoolSnapshot
    from inference_picker.readings import Readings

_log = structlog.get_logger(__name__)

MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
TIMEOUT_S: Final = 1.0
# One lost page says nothing; after this many the last readings are no longer believed.
FAILURES_TO_FORGET: Final = 3
_MAX_PAUSE_S: Final = 2.0
# Pages are asked for in turns, so that no pick waits behind all of them.
_TARGETS_PER_TURN: Final = 20
_MAX_TURNS: Final = 10
_HEAD_END: Final = b"\r\n\r\n"
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"


class ReadingsSink(Protocol):
    """Who is told of loads; None when an endpoint's is no longer known."""

    def __call__(self, address: str, readings: Readings | None, /) -> None:
        """Take an endpoint's readings in."""
        ...


@dataclass(slots=True)
class ScrapeCounts:
    """What the metrics tell of scraping."""

    pages: int = 0
    failures: int = 0


class PageError(Exception):
    """A page that can't be used; the message says why."""


class _Connection(asyncio.Protocol):
    """One connection to one endpoint: asks, and hands over whole pages."""

    def __init__(self, request: bytes, done: Callable[[bytes | PageError], None]) -> None:
        self._request = request
        self._done = done
        # Of an answer that comes in pieces: what is there, and up to where nothing is to be done.
        self._buffer = bytearray()
        self._needed = 0
        self._transport: asyncio.Transport | None = None
        self.waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self.ask()

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self) -> None:
        assert self._transport is not None  # noqa: S101 - after connection_made
        self.waiting = True
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.waiting:
            return
        answer: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return
            answer = self._buffer
        try:
            page = self._page_of(answer)
        except (PageError, ValueError) as error:
            self.close()
            self._finish(error if isinstance(error, PageError) else PageError(str(error)))
            return
        if page is not None:
            self._finish(page)
        elif answer is data:
            self._buffer += data

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiting:
            self._finish(PageError(f"the connection was closed: {exc or 'within the page'}"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _finish(self, outcome: bytes | PageError) -> None:
        self.waiting = False
        if self._buffer:
            self._buffer = bytearray()
        self._needed = 0
        self._done(outcome)

    def _page_of(self, answer: bytes | bytearray) -> bytes | None:
        """The body once it is complete. Raises PageError or ValueError for what is none."""
        if len(answer) > MAX_PAGE_BYTES:
            raise PageError(f"the page is larger than {MAX_PAGE_BYTES} bytes")
        end = answer.find(_HEAD_END)
        if end < 0:
            return None
        head = bytes(answer[:end]).lower()
        status = head.split(b" ", 2)[1:2]
        if status != [b"200"]:
            raise PageError(f"the status is {b''.join(status).decode('ascii', 'replace')}")
        start = end + len(_HEAD_END)
        length = _header(head, b"content-length")
        if length is not None:
            size = int(length)
            if size < 0 or size > MAX_PAGE_BYTES:
                raise PageError(f"the page is larger than {MAX_PAGE_BYTES} bytes")
            if len(answer) < start + size:
                self._needed = start + size
                return None
            return bytes(answer[start : start + size])
        if _header(head, b"transfer-encoding") != b"chunked":
            raise PageError("the page has neither a length nor chunks")
        # Together with the head's end the mark is there for an empty body as well.
        if not answer.endswith(_LAST_CHUNK):
            return None
        return _unchunked(bytes(answer[start:]))


class _Target:
    """One endpoint that is asked again and again."""

    def __init__(self, address: str, path: str, port: int | None, scraper: Scraper) -> None:
        self.address = address
        self.failures = 0
        self._scraper = scraper
        host, _, own_port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), port or int(own_port)
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}:{self._port}\r\nAccept: text/plain\r\n"
            "User-Agent: inference-picker\r\n\r\n"
        ).encode("ascii")
        self._reader = PageReader()
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._asked_at = 0.0
        self._not_before = 0.0

    def turn(self, now: float) -> None:
        """Ask, unless an answer is awaited still; give up on one that takes too long."""
        connection = self._connection
        if self._connecting is not None or (connection is not None and connection.waiting):
            if now - self._asked_at > TIMEOUT_S:
                self.close()
                self._take(PageError(f"no whole page within {TIMEOUT_S:g} s"))
            return
        if now < self._not_before:
            return
        self._asked_at = now
        if connection is not None and connection.is_open:
            connection.ask()
        else:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.waiting = False
            connection.close()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, self._connection = await loop.create_connection(
                lambda: _Connection(self._request, self._take), self._host, self._port
            )
        except OSError as error:
            self._take(PageError(f"can't be connected: {error}"))
        finally:
            self._connecting = None

    def _take(self, outcome: bytes | PageError) -> None:
        readings = None if isinstance(outcome, PageError) else self._reader.read(outcome)
        if readings is not None:
            self._scraper.counts.pages += 1
            self.failures = 0
            self._scraper.sink(self.address, readings)
            return
        self._scraper.counts.failures += 1
        self.failures += 1
        pause_s = min(_MAX_PAUSE_S, 0.05 * 2 ** min(self.failures, 10))
        self._not_before = asyncio.get_running_loop().time() + pause_s
        if self.failures == FAILURES_TO_FORGET:
            why = "no engine that is known wrote it" if isinstance(outcome, bytes) else str(outcome)
            _log.warning("an endpoint's metrics page is of no use", endpoint=self.address, why=why)
            self._scraper.sink(self.address, None)


class Scraper:
    """Asks every endpoint of a pool for its metrics page, again and again."""

    def __init__(
        self,
        pool: Callable[[], PoolSnapshot],
        sink: ReadingsSink,
        *,
        interval_s: float,
        path: str = "/metrics",
        port: int | None = None,
    ) -> None:
        """Ask every ``interval_s`` seconds once `run` runs; ``port`` None for the endpoint's."""
        self.sink = sink
        self.counts = ScrapeCounts()
        self._pool = pool
        self._interval_s = interval_s
        self._path = path
        self._port = port
        self._targets: dict[str, _Target] = {}

    @property
    def unread(self) -> int:
        """Endpoints whose load is not known."""
        return sum(each.failures >= FAILURES_TO_FORGET for each in self._targets.values())

    async def run(self) -> None:
        """Ask until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            next_at = loop.time()
            while True:
                self._refresh()
                targets = tuple(self._targets.values())
                turns = min(_MAX_TURNS, max(1, ceil(len(targets) / _TARGETS_PER_TURN)))
                for turn in range(turns):
                    now = loop.time()
                    for target in targets[turn::turns]:
                        target.turn(now)
                    # What was missed while the loop was busy is not made up for.
                    next_at = max(next_at + self._interval_s / turns, now)
                    await asyncio.sleep(next_at - now)
        finally:
            for target in self._targets.values():
                target.close()

    def _refresh(self) -> None:
        addresses = {each.address for each in self._pool().endpoints}
        for gone in self._targets.keys() - addresses:
            self._targets.pop(gone).close()
            self.sink(gone, None)
        for new in addresses - self._targets.keys():
            self._targets[new] = _Target(new, self._path, self._port, self)


def _header(head: bytes, name: bytes) -> bytes | None:
    """The value of a header in a head of lower case."""
    start = head.find(b"\r\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : len(head) if end < 0 else end].strip()


def _unchunked(data: bytes) -> bytes:
    """The body of chunks. Raises PageError or ValueError for what is none."""
    pieces: list[bytes] = []
    at = 0
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            raise PageError("the chunks are cut")
        size = int(data[at:end].partition(b";")[0], 16)
        if size == 0:
            return b"".join(pieces)
        start = end + 2
        if size < 0 or start + size > len(data):
            raise PageError("the chunks are cut")
        pieces.append(data[start : start + size])
        at = start + size + 2
