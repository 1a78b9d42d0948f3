"""The command as a pod runs it: start, readiness, a pick, and the drain at SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import TYPE_CHECKING, Any

import grpc

from inference_common.kube import INFERENCEPOOL_X
from inference_picker import wire
from inference_picker._pb import ext_proc_pb2 as pb
from support import manifests
from support.served_picker import picked, request_headers, served

if TYPE_CHECKING:
    from support.cluster.client import ClusterClient
    from support.scenario import Scenario


def response_headers() -> bytes:
    head = pb.HttpHeaders(end_of_stream=True)
    head.headers.headers.add(key=":status", raw_value=b"200")
    message: bytes = pb.ProcessingRequest(response_headers=head).SerializeToString()
    return message


async def test_a_picker_gets_ready_picks_and_finishes_its_streams_at_sigterm(
    scenario: Scenario,
) -> None:
    async with served(
        *("--pool", "pool", "--namespace", scenario.namespace),
        *("--pool-group", INFERENCEPOOL_X.group),
        *("--kubeconfig", scenario.cluster.kubeconfig, "--insecure"),
    ) as picker:
        await picker.until_status("readyz", 503)
        assert await picker.status("healthz") == 200
        pool = manifests.pool("pool", {"app": "m"}, resource=INFERENCEPOOL_X)
        await scenario.apply(pool, ready_pod())
        await picker.until_status("readyz", 200)

        async with grpc.aio.insecure_channel(picker.address) as channel:
            method: Any = channel.stream_stream(f"/{wire.SERVICE}/{wire.METHOD}")
            destination = await picked(method)
            assert destination.endswith(":8000")

            call = method()
            await call.write(request_headers())
            await call.read()
            picker.process.send_signal(signal.SIGTERM)
            await picker.until_status("readyz", 503)
            await call.write(response_headers())
            answer = pb.ProcessingResponse.FromString(await call.read())
            assert answer.HasField("response_headers")
            await call.done_writing()
        assert await asyncio.wait_for(picker.process.wait(), 20) == 0


def ready_pod() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "labels": {"app": "m"}},
        "spec": {"containers": [manifests.noop()], "terminationGracePeriodSeconds": 0},
    }


async def test_a_wrong_group_is_refused_with_the_known_ones() -> None:
    async with served(
        *("--pool", "p", "--namespace", "n", "--pool-group", "example.com")
    ) as picker:
        _, printed = await picker.process.communicate()

    assert picker.process.returncode == 2
    assert b"Use inference.networking.k8s.io or inference.networking.x-k8s.io." in printed


async def test_an_address_that_is_taken_is_named(cluster: ClusterClient) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with served(
            *("--pool", "p", "--namespace", "n", "--metrics-address", address),
            *("--kubeconfig", cluster.kubeconfig),
        ) as picker:
            _, printed = await picker.process.communicate()

    assert picker.process.returncode == 2
    assert f"--metrics-address {address}: can't be bound".encode() in printed


async def test_a_missing_kubeconfig_is_named() -> None:
    async with served(
        *("--pool", "p", "--namespace", "n", "--kubeconfig", "/nowhere/kubeconfig")
    ) as picker:
        _, printed = await picker.process.communicate()

    assert picker.process.returncode == 2
    assert b"no way to the API server" in printed
    assert b"/nowhere/kubeconfig" in printed
