"""Clients that see every answer and every failure."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from support.traffic import Request, Traffic, Window

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def event(text: str, **more: Any) -> bytes:
    chunk = {"system_fingerprint": "v1", "model": "m", "choices": [{"delta": {"content": text}}]}
    return b"data: " + json.dumps(chunk | more).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


@contextlib.asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        await web.SockSite(runner, listening).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            await runner.cleanup()


def streaming(*parts: bytes) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"x-served-by": "pod-1/v1"})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        return response

    return handle


async def first(handler: Handler, **options: Any) -> Request:
    async with (
        server(handler) as url,
        Traffic(url, model="m", concurrency=1, max_requests=1, **options) as traffic,
    ):
        window = await traffic.until_answers(1)
    return window.requests[0]


async def test_a_complete_stream_is_an_answer() -> None:
    found = await first(streaming(event("I "), event("am "), event("v1."), DONE))
    assert found.ok
    assert (found.status, found.chunks, found.text) == (200, 3, "I am v1.")
    assert (found.answered_by, found.served_by) == ("v1", "pod-1/v1")
    assert found.time_to_first_token is not None
    assert 0 <= found.time_to_first_token <= found.duration


async def test_the_adapter_is_read_from_the_answer_not_from_its_model() -> None:
    found = await first(
        streaming(event("I "), event("am "), event("helper-v2 "), event("on v1."), DONE)
    )
    assert (found.adapter, found.version, found.answered_by) == ("helper-v2", "v1", "helper-v2")


async def refused(_: web.Request) -> web.StreamResponse:
    return web.Response(status=503, text="no healthy upstream")


async def cut(request: web.Request) -> web.StreamResponse:
    response = await streaming(event("I "))(request)
    assert request.transport is not None
    request.transport.close()
    return response


@pytest.mark.parametrize(
    ("handler", "status", "says"),
    [
        pytest.param(refused, 503, "no healthy upstream", id="status"),
        pytest.param(streaming(event("I ")), 200, "without [DONE]", id="incomplete"),
        pytest.param(cut, 200, "Client", id="cut off"),
        pytest.param(
            streaming(b'data: {"error": {"message": "boom"}}\n\n'), 200, "boom", id="error event"
        ),
        pytest.param(streaming(b"data: {\n\n"), 200, "JSONDecodeError", id="no JSON"),
    ],
)
async def test_anything_else_is_a_failure(handler: Handler, status: int, says: str) -> None:
    found = await first(handler)
    assert found.status == status
    assert found.error is not None
    assert says in str(found)


async def test_nobody_listening_is_a_failure_not_an_exception() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with Traffic(url, model="m", concurrency=1) as traffic:
            window = await traffic.until_answers(1)
    assert window.failures[0].status is None


async def test_an_answer_that_takes_too_long_is_a_failure() -> None:
    async def handle(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    found = await first(handle, request_timeout_s=0.05)
    assert found.error == "not complete within 0.05 s"


async def test_leaving_reads_the_requests_in_flight_to_their_end() -> None:
    gate, arrived = asyncio.Event(), asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        arrived.set()
        await gate.wait()
        return await streaming(event("late"), DONE)(request)

    async with server(handle) as url:
        traffic = Traffic(url, model="m", rate=1000, max_requests=5)
        async with traffic:
            await arrived.wait()
            stopping = asyncio.ensure_future(traffic.stop())
            await asyncio.sleep(0)
            assert traffic.requests == []
            gate.set()
            await stopping
        assert traffic.requests
        assert all(request.ok for request in traffic.requests)


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    gate, count = asyncio.Event(), 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        if count == 10:
            gate.set()
        await gate.wait()
        return await streaming(event("v1"), DONE)(request)

    async with (
        server(handle) as url,
        Traffic(url, model="m", rate=500, max_requests=10) as traffic,
    ):
        window = await traffic.until_answers(10)
    assert window.total == 10


async def test_a_window_holds_the_next_requests_however_slow_they_are() -> None:
    """The first ten to finish would all be of the fast version."""
    gate = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        # Requests that are sent one after the other need not come so.
        question = (await request.json())["messages"][0]["content"]
        mine = int(question.rpartition(" ")[2].rstrip(")"))
        if mine > 20:
            gate.set()
        if mine % 2:
            await gate.wait()
        name = "slow" if mine % 2 else "fast"
        return await streaming(event("x", system_fingerprint=name), DONE)(request)

    async with server(handle) as url, Traffic(url, model="m", rate=200) as traffic:
        window = await traffic.until_answers(10)
    assert window.counts() == {"slow": 5, "fast": 5}


async def test_a_mark_begins_a_new_window() -> None:
    async with (
        server(streaming(event("x"), DONE)) as url,
        Traffic(url, model="m", concurrency=2) as traffic,
    ):
        await traffic.until_answers(5)
        before = len(traffic.requests)
        traffic.mark()
        assert traffic.window().total == 0
        await traffic.until_answers(3)
    assert before + 3 <= len(traffic.requests)


async def test_a_change_is_awaited_by_who_answers() -> None:
    """The version changes with the 30th request; nothing but the answers tells."""

    async def handle(request: web.Request) -> web.StreamResponse:
        question = (await request.json())["messages"][0]["content"]
        late = int(question.rpartition(" ")[2].rstrip(")")) >= 30
        name = "new" if late else "old"
        return await streaming(event("x", system_fingerprint=name), DONE)(request)

    async with server(handle) as url, Traffic(url, model="m", concurrency=1) as traffic:
        await traffic.until_answered_by("new")
        assert traffic.sent > 30
    async with server(handle) as url, Traffic(url, model="m", concurrency=1) as traffic:
        await traffic.until_only("new", 8)
        assert traffic.sent >= 38
        with pytest.raises(TimeoutError):
            await traffic.until_only("old", 8, timeout_s=0.05)


async def test_waiting_in_vain_says_what_was_seen() -> None:
    gate = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return await streaming(event("x"), DONE)(request)

    async with (
        server(handle) as url,
        Traffic(url, model="m", concurrency=1, max_requests=1) as traffic,
    ):
        with pytest.raises(TimeoutError, match="0 answers and 0 failures in"):
            await traffic.until_answers(1, timeout_s=0.05)
        gate.set()


@pytest.mark.parametrize(
    "url", ["http://example.com:80", "http://10.0.0.1:80", "https://127.0.0.1:80", "127.0.0.1:80"]
)
def test_only_loopback_is_asked(url: str) -> None:
    with pytest.raises(ValueError, match="stays on this machine"):
        Traffic(url, model="m", rate=1)


def answer(number: int, version: str, error: str | None = None) -> Request:
    return Request(
        number=number, start=0.0, duration=1.0, status=200, error=error, fingerprint=version
    )


def test_intervals_are_exact() -> None:
    # Clopper-Pearson for 10 of 100 at 95 %: 0.0490 to 0.1762 (Newcombe 1998, method 5, formula).
    requests = [answer(n, "v2" if n < 10 else "v1") for n in range(100)]
    low, high = Window(requests).interval("v2")
    assert (low, high) == pytest.approx((0.04900, 0.17622), abs=5e-5)


@pytest.mark.parametrize(
    ("count", "low", "high"), [pytest.param(30, 3.2, 21.8), pytest.param(150, 34.9, 65.1)]
)
def test_a_window_fits_what_chance_may_make_of_it_once_in_ten_million(
    count: int, low: float, high: float
) -> None:
    """Limits by scipy.stats.binomtest(count, 300).proportion_ci(1 - 1e-7)."""
    window = Window([answer(n, "v2" if n < count else "v1") for n in range(300)])
    fitting = [share for share in range(1000) if window.fits("v2", share / 1000)]
    assert fitting[0] / 10 == pytest.approx(low, abs=0.11)
    assert fitting[-1] / 10 == pytest.approx(high, abs=0.11)


def test_a_version_without_answers_has_an_interval_from_zero() -> None:
    # For 0 of n the upper limit is 1 - (alpha/2)^(1/n).
    low, high = Window([answer(n, "v1") for n in range(50)]).interval("v2")
    assert (low, high) == pytest.approx((0.0, 1 - 0.025 ** (1 / 50)))


def test_failures_are_no_answers() -> None:
    window = Window([answer(0, "v1"), answer(1, "v2", error="broken")])
    assert (window.total, window.shares(), len(window.failures)) == (1, {"v1": 1.0}, 1)


@given(st.lists(st.sampled_from(["v1", "v2", "v3"])))
def test_shares_sum_to_one_and_lie_in_their_intervals(versions: list[str]) -> None:
    window = Window([answer(number, version) for number, version in enumerate(versions)])
    assert sum(window.shares().values()) == pytest.approx(1.0 if versions else 0.0)
    for version in ("v1", "v2", "v3"):
        low, high = window.interval(version)
        assert low <= window.share(version) <= high
