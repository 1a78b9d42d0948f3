"""Scraping of real sockets: what comes whole is read, what does not is told."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from inference_picker import scraping as picker_scraping
from inference_picker.pool import Endpoint, PoolSnapshot, make_snapshot
from inference_picker.scraping import FAILURES_TO_FORGET, Scraper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from inference_picker.readings import Readings

WAIT_S = 120.0
PAGE = b"vllm:num_requests_running 3\nvllm:num_requests_waiting 2\n"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1c\r\n" + PAGE[:28] + b"\r\n1c\r\n" + PAGE[28:] + b"\r\n0\r\n\r\n"
)


def whole(page: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(page) + page


class Server:
    """Answers each request with the same bytes; counts connections and requests."""

    def __init__(self, answer: bytes, *, closes: bool = False, piece: int = 1 << 20) -> None:
        self.answer = answer
        self.closes = closes
        self.piece = piece
        self.connections = 0
        self.requests = 0
        self.address = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                for start in range(0, len(self.answer), self.piece):
                    writer.write(self.answer[start : start + self.piece])
                    await writer.drain()
                    await asyncio.sleep(0)
                if self.closes:
                    break
        writer.close()


@contextlib.asynccontextmanager
async def listening(server: Server) -> AsyncIterator[Server]:
    found = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.address = f"127.0.0.1:{found.sockets[0].getsockname()[1]}"
    async with found:
        yield server


class Sink:
    """What the scraper told, and the means to wait for it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Readings | None]] = []

    def __call__(self, address: str, readings: Readings | None, /) -> None:
        self.told.append((address, readings))


@contextlib.asynccontextmanager
async def scraping(
    *addresses: str,
    pool: Callable[[], PoolSnapshot] | None = None,
    port: int | None = None,
) -> AsyncIterator[tuple[Scraper, Sink]]:
    members = make_snapshot([Endpoint(address=each) for each in addresses])
    sink = Sink()
    scraper = Scraper(pool or (lambda: members), sink, interval_s=0.005, port=port)
    task = asyncio.create_task(scraper.run())
    try:
        yield scraper, sink
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - it looks into another task
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "answer", [pytest.param(whole(PAGE), id="length"), pytest.param(CHUNKED, id="chunks")]
)
async def test_one_connection_brings_page_after_page(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A page that a busy machine delays would be given up, and its connection with it.
    monkeypatch.setattr(picker_scraping, "TIMEOUT_S", WAIT_S)
    async with listening(Server(answer)) as server, scraping(server.address) as (scraper, sink):
        await until(lambda: scraper.counts.pages >= 5)

    assert server.connections == 1
    address, readings = sink.told[0]
    assert address == server.address
    assert readings is not None
    assert (readings.running, readings.waiting) == (3, 2)
    assert scraper.counts.failures == 0


@pytest.mark.parametrize(
    "answer", [pytest.param(whole(PAGE), id="length"), pytest.param(CHUNKED, id="chunks")]
)
@pytest.mark.parametrize("piece", [1, 7, 40])
async def test_an_answer_that_comes_in_pieces_is_put_together(answer: bytes, piece: int) -> None:
    async with (
        listening(Server(answer, piece=piece)) as server,
        scraping(server.address) as (scraper, sink),
    ):
        await until(lambda: scraper.counts.pages >= 2)

    loads = {(each.running, each.waiting) for _, each in sink.told if each is not None}
    assert loads == {(3, 2)}


async def test_pages_may_be_on_a_port_of_their_own() -> None:
    async with listening(Server(whole(PAGE))) as server:
        port = int(server.address.rpartition(":")[2])
        # Nothing listens on the port of the requests.
        async with scraping("127.0.0.1:1", port=port) as (scraper, sink):
            await until(lambda: scraper.counts.pages >= 2)

    assert {address for address, _ in sink.told} == {"127.0.0.1:1"}


async def test_a_server_that_closes_after_each_page_is_read_all_the_same() -> None:
    async with (
        listening(Server(whole(PAGE), closes=True)) as server,
        scraping(server.address) as (scraper, _),
    ):
        await until(lambda: scraper.counts.pages >= 3)

    assert server.connections >= 3


@pytest.mark.parametrize(
    ("answer", "closes"),
    [
        pytest.param(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", False, id="gone"),
        pytest.param(whole(PAGE)[:-5], True, id="truncated"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 52428800\r\n\r\n", False, id="50-MB"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n400000\r\n" + b"x" * 5_000_000,
            False,
            id="endless-chunks",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", False, id="odd-length"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", False, id="no-length"),
        pytest.param(b"garbage\r\n\r\n", False, id="no-http"),
        pytest.param(whole(b"<html></html>"), False, id="no-metrics"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n0\r\n\r\n",
            False,
            id="broken-chunks",
        ),
    ],
)
async def test_a_page_of_no_use_is_told_after_three(answer: bytes, closes: bool) -> None:
    async with (
        listening(Server(answer, closes=closes)) as server,
        scraping(server.address) as (scraper, sink),
    ):
        await until(lambda: scraper.unread == 1)

        assert sink.told == [(server.address, None)]
        assert scraper.counts.failures >= FAILURES_TO_FORGET


async def test_an_endpoint_that_is_gone_is_told_and_read_again_when_it_is_back() -> None:
    async with listening(Server(whole(PAGE))) as server:
        address = server.address
    async with scraping(address) as (scraper, sink):
        await until(lambda: scraper.unread == 1)
        assert sink.told == [(address, None)]
        back = Server(whole(PAGE))
        host, _, port = address.rpartition(":")
        async with await asyncio.start_server(back.handle, host, int(port)):
            await until(lambda: scraper.counts.pages > 0)
            assert scraper.unread == 0


async def test_a_server_that_never_answers_is_given_up_on() -> None:
    async with listening(Server(b"")) as server, scraping(server.address) as (scraper, _):
        await until(lambda: scraper.counts.failures >= 1)


async def test_an_endpoint_that_left_the_pool_is_forgotten() -> None:
    async with listening(Server(whole(PAGE))) as server:
        members = make_snapshot([Endpoint(address=server.address)])
        async with scraping(pool=lambda: members) as (scraper, sink):
            await until(lambda: scraper.counts.pages > 0)
            members = PoolSnapshot()
            await until(lambda: sink.told[-1] == (server.address, None))
