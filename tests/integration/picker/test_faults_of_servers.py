"""What model servers do wrong, through a real Envoy: a status, a class, and nothing in flight."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from inference_picker.pool import Endpoint, make_snapshot
from support.picker_rig import FULL_DUPLEX, RECOMMENDED, Setup, running_setup, whole_stream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


async def garbage_json(_request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"<html>proxy error</html>", content_type="application/json")


async def garbage_stream(_request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"\x00\xff no events", content_type="text/event-stream")


async def hangs(_request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def dies_at_once(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


FAULTS = {
    "garbage-json": garbage_json,
    "garbage-stream": garbage_stream,
    "hangs": hangs,
    "dies-at-once": dies_at_once,
}


def with_faults(setup: Setup) -> Setup:
    for each in setup.upstreams:
        each.faults.update(FAULTS)
    return setup


@pytest.mark.parametrize("fault", ["garbage-json", "garbage-stream"])
async def test_garbage_under_a_200_is_an_error_of_its_version(
    any_streaming_mode: Setup, fault: str
) -> None:
    setup = with_faults(any_streaming_mode)

    status, _ = await setup.chat(model="base", headers={"x-test-fault": fault})
    await setup.landed()

    assert status == 200
    assert setup.metric("request_errors_total", **{"class": "malformed"}) == 1
    assert setup.metric("request_duration_seconds_count") == 0
    assert setup.metric("in_flight") == 0


async def test_a_pod_that_closes_without_an_answer_is_a_5xx(any_mode: Setup) -> None:
    setup = with_faults(any_mode)

    status, _ = await setup.chat(model="base", headers={"x-test-fault": "dies-at-once"})
    await setup.landed()

    assert status == 503
    assert setup.metric("request_errors_total", **{"class": "5xx"}) == 1


async def test_a_pod_that_hangs_is_charged_when_its_client_leaves(any_mode: Setup) -> None:
    setup = with_faults(any_mode)
    client = asyncio.create_task(setup.chat(model="base", headers={"x-test-fault": "hangs"}))
    await setup.until(lambda: setup.metric("in_flight") == 1)

    client.cancel()
    await asyncio.gather(client, return_exceptions=True)
    await setup.landed()

    assert setup.metric("request_errors_total", **{"class": "no-response"}) == 1
    assert setup.metric("in_flight") == 0


async def test_metrics_pages_that_are_gone_do_not_stop_requests(setup: Setup) -> None:
    # The model servers of this set-up have no metrics page at all.
    await setup.until(lambda: setup.metric("endpoints_unread") == 2)

    assert (await setup.chat())[0] == 200
    await setup.landed()
    assert setup.metric("page_failures_total") >= 6


PAGE = b"vllm:num_requests_running 3\nvllm:num_requests_waiting 2\n"


async def good_page(_request: web.Request) -> web.StreamResponse:
    return web.Response(body=PAGE)


async def cut_page(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-length": str(len(PAGE) * 2)})
    await response.prepare(request)
    await response.write(PAGE)
    assert request.transport is not None
    request.transport.abort()
    return response


async def page_of_50_mb(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    line = b"# " + b"x" * 997 + b"\n"
    for _ in range(500):
        await response.write(line * 100)
    return response


async def strange_page(_request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"\xff\x00" * 5000)


@pytest.mark.parametrize("page", [cut_page, page_of_50_mb, strange_page, hangs])
async def test_a_metrics_page_that_turns_bad_stops_nothing_and_is_told(
    setup: Setup, page: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> None:
    for upstream in setup.upstreams:
        upstream.page = good_page
    await setup.until(lambda: setup.metric("pages_read_total") >= 2)
    await setup.until(lambda: setup.metric("endpoints_unread") == 0)
    for upstream in setup.upstreams:
        upstream.page = page

    await setup.until(lambda: setup.metric("endpoints_unread") == 2)
    for upstream in setup.upstreams:
        upstream.hold = asyncio.Event()
    clients = [asyncio.create_task(setup.chat(model="base")) for _ in range(10)]
    await setup.until(lambda: sum(each.running for each in setup.upstreams) == 10)
    for upstream in setup.upstreams:
        assert upstream.hold is not None
        upstream.hold.set()

    assert await asyncio.gather(*clients) == [(200, whole_stream("base", 5))] * 10
    await setup.landed()
    assert setup.metric("page_failures_total") > 0
    # Both servers go on being picked.
    assert all(upstream.bodies for upstream in setup.upstreams)
    for upstream in setup.upstreams:
        upstream.page = good_page
    await setup.until(lambda: setup.metric("endpoints_unread") == 0)


async def test_a_pool_whose_pods_were_exchanged_keeps_the_streams_that_run(setup: Setup) -> None:
    old, new = setup.source.current.endpoints
    setup.source.current = make_snapshot([old])
    setup.upstreams[0].hold = asyncio.Event()
    running = asyncio.create_task(setup.chat(model="base"))
    await setup.until(lambda: setup.upstreams[0].running == 1)

    setup.source.current = make_snapshot([new])
    answers = await asyncio.gather(*(setup.chat(model="base") for _ in range(5)))
    setup.upstreams[0].hold.set()

    assert answers == [(200, whole_stream("base", 5))] * 5
    assert await running == (200, whole_stream("base", 5))
    assert len(setup.upstreams[1].bodies) == 5
    await setup.landed()
    assert setup.metric("requests_total", version="hash0") == 1
    assert setup.metric("in_flight") == 0


async def test_a_pool_that_is_empty_for_a_while_answers_503_then_200(any_mode: Setup) -> None:
    whole = any_mode.source.current
    any_mode.source.current = make_snapshot([])
    assert (await any_mode.chat())[0] == 503
    any_mode.source.current = whole

    assert (await any_mode.chat())[0] == 200
    await any_mode.landed()
    assert any_mode.metric("refusals_total", reason="rejected-no-endpoints") == 1


@pytest.mark.parametrize(
    "mode", [pytest.param(RECOMMENDED, id="recommended"), pytest.param(FULL_DUPLEX, id="duplex")]
)
async def test_unsampled_answers_are_whole_and_leave_nothing_in_flight(
    tmp_path: Path, mode: dict[str, object]
) -> None:
    async with running_setup(tmp_path, mode, watch_share=0.0) as setup:
        for upstream in setup.upstreams:
            upstream.chunks = 3
        answers = [
            await asyncio.gather(*(setup.chat(model="base") for _ in range(20))) for _ in range(10)
        ]

        assert {answer for each in answers for answer in each} == {(200, whole_stream("base", 3))}
        await setup.landed()
        assert setup.metric("in_flight") == 0
        followed = setup.metric("requests_total") + setup.metric("unfollowed_requests_total")
        assert followed == 200
        assert setup.metric("request_errors_total") == 0


async def test_unsampled_requests_of_every_size_are_served_whole(tmp_path: Path) -> None:
    async with running_setup(tmp_path, FULL_DUPLEX, watch_share=0.0) as setup:
        # The first exchange shows the mode; from the second on the picker leaves early.
        assert (await setup.chat(model="base"))[0] == 200
        for _ in range(20):
            async with setup.client.get(f"{setup.url}/v1/models") as response:
                assert (await response.json())["data"] == [{"id": "base"}]
        for size in (10, 61_990, 62_000, 124_000, 1_500_000):
            body = {"model": "base", "stream": True, "prompt": "x" * size}
            sent = io.BytesIO(json.dumps(body).encode())
            async with setup.client.post(f"{setup.url}/v1/chat/completions", data=sent) as response:
                assert await response.read() == whole_stream("base", 5)
        await setup.landed()

        received = [json.loads(each) for upstream in setup.upstreams for each in upstream.bodies]
        lengths = sorted(len(each["prompt"]) for each in received if "prompt" in each)
        assert lengths == [10, 61_990, 62_000, 124_000, 1_500_000]
        assert setup.metric("unfollowed_requests_total") == 25
        assert setup.metric("protocol_errors_total") == 0


async def test_an_endpoint_that_nobody_listens_at_is_a_5xx(any_mode: Setup) -> None:
    any_mode.source.current = make_snapshot([Endpoint(address="127.0.0.1:1", version="gone")])

    assert (await any_mode.chat(model="base"))[0] == 503
    await any_mode.landed()
    assert any_mode.metric("request_errors_total", version="gone", **{"class": "5xx"}) == 1
