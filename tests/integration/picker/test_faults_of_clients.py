"""What clients send, through a real Envoy: a status, a reason, bounded memory."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import aiohttp
import psutil
import pytest

from inference_picker.splits import ModelSplit, Target
from support.picker_rig import Setup, whole_stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HUNDRED_MB = 100 * 1000 * 1000
MIB = 1024 * 1024


async def long_body(size: int) -> AsyncIterator[bytes]:
    piece = b"x" * MIB
    yield b'{"model":"base","prompt":"'
    for _ in range(size // MIB):
        yield piece


async def send_100_mb(setup: Setup) -> int | None:
    """The status; None where Envoy closed while the client was writing still."""
    try:
        async with setup.client.post(
            f"{setup.url}/v1/chat/completions", data=long_body(HUNDRED_MB)
        ) as response:
            return response.status
    except aiohttp.ClientError:
        return None


async def test_a_body_of_100_mb_is_refused_and_not_kept(any_mode: Setup) -> None:
    assert await send_100_mb(any_mode) in {413, None}
    await any_mode.landed()
    once = psutil.Process().memory_info().rss

    for _ in range(3):
        assert await send_100_mb(any_mode) in {413, None}
    await any_mode.landed()

    # Allocators give little back, but a second body needs no room of its own.
    assert psutil.Process().memory_info().rss - once < 64 * MIB
    assert any_mode.metric("in_flight") == 0
    assert (await any_mode.chat())[0] == 200


async def test_a_declared_length_above_the_limit_is_refused_before_the_body(
    any_mode: Setup,
) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(any_mode.url.rpartition(":")[2])
    )
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % HUNDRED_MB
    )
    status = await reader.readline()
    writer.close()

    assert b" 413 " in status
    reason = "rejected-body-too-large"
    await any_mode.until(lambda: any_mode.metric("refusals_total", reason=reason) == 1)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b'{"model": "base"', "rejected-malformed-body", id="cut"),
        pytest.param(b"[1]", "rejected-malformed-body", id="no-object"),
        pytest.param(b'{"model": 7}', "rejected-no-model", id="no-string"),
        pytest.param(b'{"model": ""}', "rejected-no-model", id="no-name"),
        pytest.param(b'{"model":"\xff"}', "rejected-malformed-body", id="no-utf-8"),
        pytest.param(b"[" * 100_000, "rejected-malformed-body", id="too-deep"),
    ],
)
async def test_a_malformed_body_is_refused_with_its_reason(
    any_mode: Setup, body: bytes, reason: str
) -> None:
    async with any_mode.client.post(f"{any_mode.url}/v1/completions", data=body) as response:
        assert response.status == 400
        assert response.headers["x-llm-d-request-dropped-reason"] == reason
    await any_mode.landed()
    assert any_mode.metric("in_flight") == 0
    assert all(not upstream.bodies for upstream in any_mode.upstreams)


async def test_an_unknown_model_is_the_servers_to_refuse(any_mode: Setup) -> None:
    status, _ = await any_mode.chat(model="never-heard-of", headers={"x-test-status": "404"})
    await any_mode.landed()

    assert status == 404
    labels = {"class": "4xx", "model_name": "other", "target_model_name": "other"}
    assert any_mode.metric("request_errors_total", **labels) == 1


@pytest.mark.parametrize(
    "name", ["a\r\nx-injected: 1", "a\nb", 'q"} 1\ninference_picker_evil 1', "\x00", "é" * 300]
)
async def test_a_models_name_can_inject_nothing(any_mode: Setup, name: str) -> None:
    status, body = await any_mode.chat(model=name, stream=False)

    assert (status, json.loads(body)["model"]) == (200, name)
    await any_mode.landed()
    page = f"http://127.0.0.1:{any_mode.picker.metrics_port}/metrics"
    async with any_mode.client.get(page) as response:
        text = await response.text()
    assert "evil" not in text
    for upstream in any_mode.upstreams:
        assert all("x-injected" not in headers for headers in upstream.headers)


async def test_a_targets_name_can_inject_nothing(any_mode: Setup) -> None:
    name = 'v1\r\nx-injected: 1"\n'
    pool = any_mode.source.current
    split = ModelSplit(model="odd", targets=(Target(name=name, weight=1),))
    any_mode.source.current = type(pool)(
        endpoints=pool.endpoints, splits={"odd": split}, names=frozenset({"odd", name})
    )

    status, body = await any_mode.chat(model="odd", stream=False)

    assert (status, json.loads(body)["model"]) == (200, "odd")
    await any_mode.landed()
    assert any_mode.metric("requests_total", target_model_name=name) == 1
    for upstream in any_mode.upstreams:
        assert all("x-injected" not in headers for headers in upstream.headers)


async def test_a_client_that_reads_slowly_gets_every_byte(any_streaming_mode: Setup) -> None:
    setup = any_streaming_mode
    for upstream in setup.upstreams:
        upstream.chunks = 3_000
    received = b""
    async with setup.client.post(
        f"{setup.url}/v1/chat/completions", json={"model": "base", "stream": True}
    ) as response:
        while piece := await response.content.read(8192):
            received += piece
            await asyncio.sleep(0)

    assert received == whole_stream("base", 3_000)
    await setup.landed()


async def test_a_jump_of_the_wall_clock_changes_no_duration(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    for upstream in setup.upstreams:
        upstream.hold = asyncio.Event()
    client = asyncio.create_task(setup.chat(model="base"))
    await setup.until(lambda: setup.metric("in_flight") == 1)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    for upstream in setup.upstreams:
        assert upstream.hold is not None
        upstream.hold.set()

    assert (await client)[0] == 200
    await setup.landed()
    assert 0 <= setup.metric("request_duration_seconds_sum") < 60
    assert 0 <= setup.metric("time_to_first_token_seconds_sum") < 60
