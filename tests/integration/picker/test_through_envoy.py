"""The picker behind a real Envoy: bytes, names, counts and errors."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inference_picker.director import Settings
from inference_picker.pool import PoolSnapshot, make_snapshot
from support.picker_rig import (
    RECOMMENDED,
    Setup,
    running_setup,
    whole_stream,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


async def test_streamed_answers_arrive_whole_under_the_name_that_was_asked_for(
    any_mode: Setup,
) -> None:
    for upstream in any_mode.upstreams:
        upstream.chunks = 40
    answers = await asyncio.gather(*(any_mode.chat() for _ in range(20)))

    assert answers == [(200, whole_stream("travelhelper", 40))] * 20
    await any_mode.landed()
    assert any_mode.metric("requests_total") == 20
    assert any_mode.metric("time_to_first_token_seconds_count") == 20
    assert any_mode.metric("request_errors_total") == 0


async def test_answers_in_one_piece_have_the_right_length_and_name(any_mode: Setup) -> None:
    status, body = await any_mode.chat(stream=False)

    assert status == 200
    assert json.loads(body) == {"id": "1", "model": "travelhelper", "choices": ["é"]}


async def test_the_server_gets_the_clients_bytes_with_the_model_replaced(any_mode: Setup) -> None:
    sent = b'{ "model" : "travelhelper", "messages":[{"model":"travelhelper"}], "n": 1.0 }'
    async with any_mode.client.post(f"{any_mode.url}/v1/chat/completions", data=sent) as response:
        assert response.status == 200

    (received,) = [body for each in any_mode.upstreams for body in each.bodies]
    target = json.loads(received)["model"]
    assert target in {"travel-helper-v1", "travel-helper-v2"}
    assert received == sent.replace(b'"travelhelper"', f'"{target}"'.encode(), 1)
    (headers,) = [each for upstream in any_mode.upstreams for each in upstream.headers]
    assert headers.get("content-length", str(len(received))) == str(len(received))


async def test_large_bodies_pass_unharmed(any_mode: Setup) -> None:
    text = "x" * 1_500_000
    body = json.dumps({"prompt": text, "model": "travelhelper"}).encode()
    async with any_mode.client.post(
        f"{any_mode.url}/v1/chat/completions", data=io.BytesIO(body)
    ) as response:
        assert response.status == 200

    (received,) = [body for each in any_mode.upstreams for body in each.bodies]
    assert json.loads(received)["prompt"] == text
    await any_mode.landed()
    assert any_mode.metric("protocol_errors_total") == 0


async def test_a_body_above_the_limit_is_answered_with_413(any_mode: Setup) -> None:
    body = b'{"model":"travelhelper","prompt":"' + b"x" * 5_000_000
    async with any_mode.client.post(
        f"{any_mode.url}/v1/chat/completions", data=io.BytesIO(body)
    ) as response:
        assert response.status == 413
        reason = response.headers["x-gateway-request-dropped-reason"]
        assert reason == "rejected-body-too-large"


async def test_requests_without_body_are_picked_too(any_mode: Setup) -> None:
    async with any_mode.client.get(f"{any_mode.url}/v1/models") as response:
        assert response.status == 200
        assert (await response.json())["data"] == [{"id": "base"}]
    await any_mode.landed()


async def test_errors_are_counted_by_their_status_and_kept_out_of_the_latencies(
    any_mode: Setup,
) -> None:
    for status in ("500", "503", "404"):
        assert (await any_mode.chat(headers={"x-test-status": status}))[0] == int(status)
    await any_mode.landed()

    assert any_mode.metric("request_errors_total", **{"class": "5xx"}) == 2
    assert any_mode.metric("request_errors_total", **{"class": "4xx"}) == 1
    assert any_mode.metric("time_to_first_token_seconds_count") == 0
    assert any_mode.metric("request_duration_seconds_count") == 0


async def test_a_server_that_is_gone_counts_as_an_error_of_its_version(setup: Setup) -> None:
    gone = setup.source.current.endpoints[0]
    setup.source.current = make_snapshot([type(gone)(address="127.0.0.1:1", version="gone")])

    assert (await setup.chat(model="m"))[0] == 503
    await setup.landed()
    assert setup.metric("request_errors_total", version="gone", **{"class": "5xx"}) == 1


async def test_nothing_stays_in_flight_after_clients_leave(any_mode: Setup) -> None:
    for upstream in any_mode.upstreams:
        upstream.hold = asyncio.Event()
    clients = [asyncio.create_task(any_mode.chat()) for _ in range(10)]
    await any_mode.until(lambda: sum(each.running for each in any_mode.upstreams) == 10)
    assert any_mode.metric("in_flight") == 10

    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)

    await any_mode.landed()
    assert any_mode.metric("in_flight") == 0
    assert any_mode.metric("requests_total") == 10


async def test_an_answer_that_breaks_off_is_a_reset(any_streaming_mode: Setup) -> None:
    setup = any_streaming_mode
    for upstream in setup.upstreams:
        upstream.hold = asyncio.Event()
    async with setup.client.post(
        f"{setup.url}/v1/chat/completions",
        json={"model": "travelhelper", "stream": True},
        headers={"x-test-break": "1"},
    ) as response:
        await response.content.readany()
        for upstream in setup.upstreams:
            assert upstream.hold is not None
            upstream.hold.set()
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    await setup.landed()

    assert setup.metric("request_errors_total", **{"class": "reset"}) == 1


async def test_requests_in_flight_are_spread_evenly(setup: Setup) -> None:
    for upstream in setup.upstreams:
        upstream.hold = asyncio.Event()
    clients = [asyncio.create_task(setup.chat()) for _ in range(12)]
    await setup.until(lambda: sum(each.running for each in setup.upstreams) == 12)

    assert [each.running for each in setup.upstreams] == [6, 6]
    for upstream in setup.upstreams:
        assert upstream.hold is not None
        upstream.hold.set()
    await asyncio.gather(*clients)
    await setup.landed()


async def test_targets_get_their_shares_and_are_measured_apart(setup: Setup) -> None:
    for _ in range(10):
        for upstream in setup.upstreams:
            upstream.hold = asyncio.Event()
        clients = [asyncio.create_task(setup.chat()) for _ in range(20)]
        # All at the same time: then each server has half of them, whatever ends first.
        await setup.until(lambda: sum(each.running for each in setup.upstreams) == 20)
        for upstream in setup.upstreams:
            assert upstream.hold is not None
            upstream.hold.set()
        await asyncio.gather(*clients)
        await setup.landed()

    received = Counter(
        json.loads(body)["model"] for upstream in setup.upstreams for body in upstream.bodies
    )
    # 10 % of 200 are 20; the sequence is off by at most a few.
    assert abs(received["travel-helper-v2"] - 20) <= 4
    for target, count in received.items():
        assert setup.metric("requests_total", target_model_name=target) == count
        assert setup.metric("picks_total", target_model_name=target) == count
    assert setup.metric("requests_total", model_name="travelhelper") == 200
    assert setup.metric("requests_total", version="hash0") == 100


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        pytest.param(b"{", 400, "rejected-malformed-body", id="no-json"),
        pytest.param(b"{}", 400, "rejected-no-model", id="no-model"),
    ],
)
async def test_bad_bodies_are_answered_with_400_and_a_reason(
    any_mode: Setup, body: bytes, status: int, reason: str
) -> None:
    async with any_mode.client.post(f"{any_mode.url}/v1/completions", data=body) as response:
        assert response.status == status
        for name in ("x-gateway-request-dropped-reason", "x-llm-d-request-dropped-reason"):
            assert response.headers[name] == reason
        assert (await response.json())["error"]["type"] == reason
    await any_mode.until(lambda: any_mode.metric("refusals_total", reason=reason) == 1)
    await any_mode.landed()


async def test_an_empty_pool_is_answered_with_503(any_mode: Setup) -> None:
    any_mode.source.current = PoolSnapshot()

    status, body = await any_mode.chat()

    assert status == 503
    assert json.loads(body)["error"]["message"] == "No ready endpoint, of 0 in the pool."


async def test_the_targets_name_stays_where_that_is_wanted(tmp_path: Path) -> None:
    async with running_setup(tmp_path, RECOMMENDED, Settings(expose_target_model=True)) as setup:
        _, body = await setup.chat(stream=False)

    assert json.loads(body)["model"] in {"travel-helper-v1", "travel-helper-v2"}


async def test_an_unwatched_answer_is_whole_and_its_end_is_seen(tmp_path: Path) -> None:
    async with running_setup(tmp_path, RECOMMENDED, watch_share=0.0) as setup:
        for upstream in setup.upstreams:
            upstream.hold = asyncio.Event()
        client = asyncio.create_task(setup.chat(model="base"))
        await setup.until(lambda: sum(each.running for each in setup.upstreams) == 1)
        assert setup.metric("in_flight") == 1
        for upstream in setup.upstreams:
            assert upstream.hold is not None
            upstream.hold.set()

        assert await client == (200, whole_stream("base", 5))
        await setup.landed()
        assert setup.metric("request_duration_seconds_count") == 1
        assert setup.metric("time_to_first_token_seconds_count") == 0


async def test_a_client_can_not_choose_its_own_endpoint(setup: Setup) -> None:
    status, _ = await setup.chat(headers={"x-gateway-destination-endpoint": "127.0.0.1:1"})

    assert status == 200


async def test_the_body_may_come_slowly_in_pieces(any_mode: Setup) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for byte in b'{"model":"travelhelper","stream":true}':
            yield bytes([byte])

    async with any_mode.client.post(
        f"{any_mode.url}/v1/chat/completions",
        data=pieces(),
        headers={"content-type": "application/json"},
    ) as response:
        assert (response.status, await response.read()) == (200, whole_stream("travelhelper", 5))


async def test_health_and_metrics_are_served_beside(setup: Setup) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{setup.picker.health_port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in (
            *("", "liveness", "readiness", "inference-extension"),
            "envoy.service.ext_proc.v3.ExternalProcessor",
        ):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        await setup.picker.health.set_ready(ready=False)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service="readiness"))
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        answer = await stub.Check(health_pb2.HealthCheckRequest(service="liveness"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    page = f"http://127.0.0.1:{setup.picker.metrics_port}"
    async with setup.client.get(f"{page}/metrics") as response:
        assert "inference_picker_in_flight{" in await response.text()
    for path in ("healthz", "readyz"):
        async with setup.client.get(f"{page}/{path}") as response:
            assert response.status == 200


async def test_what_is_no_protocol_ends_its_own_stream_only(tmp_path: Path) -> None:
    async with (
        running_setup(tmp_path, RECOMMENDED, tls=None) as setup,
        grpc.aio.insecure_channel(f"127.0.0.1:{setup.picker.port}") as channel,
    ):
        method: Any = channel.stream_stream("/envoy.service.ext_proc.v3.ExternalProcessor/Process")
        with pytest.raises(grpc.aio.AioRpcError, match="Not a ProcessingRequest"):
            async for _ in method(iter([b"\xff\xff"])):
                pass
        assert setup.metric("protocol_errors_total") == 1
        assert (await setup.chat())[0] == 200
