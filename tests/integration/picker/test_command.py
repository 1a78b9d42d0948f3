"""The command as a pod runs it: start, readiness, a pick, and the drain at SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc

from inference_common.kube import INFERENCEPOOL_X
from inference_picker import wire
from inference_picker._pb import ext_proc_pb2 as pb
from support import manifests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.cluster.client import ClusterClient
    from support.scenario import Scenario


@dataclass(kw_only=True)
class Served:
    process: asyncio.subprocess.Process
    address: str
    pages: str

    async def status(self, path: str) -> int:
        """HTTP status of a page; 0 while nothing listens."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{self.pages}/{path}") as response,
            ):
                return response.status
        except aiohttp.ClientConnectionError:
            return 0

    async def until_status(self, path: str, expected: int) -> None:
        async with asyncio.timeout(30):
            while await self.status(path) != expected:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.asynccontextmanager
async def served(*args: str) -> AsyncIterator[Served]:
    port, pages = free_port(), free_port()
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("inference-rollouts"), "picker", "serve"),
        *("--address", f"127.0.0.1:{port}", "--metrics-address", f"127.0.0.1:{pages}"),
        *("--health-address", "none", "--drain-delay-s", "0.1", *args),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Served(
            process=process, address=f"127.0.0.1:{port}", pages=f"http://127.0.0.1:{pages}"
        )
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def request_headers() -> bytes:
    head = pb.HttpHeaders(end_of_stream=True)
    message: bytes = pb.ProcessingRequest(request_headers=head).SerializeToString()
    return message


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


async def picked(method: Any) -> str:
    """The destination of a request, once there is a ready endpoint."""
    async with asyncio.timeout(30):
        while True:
            call = method()
            await call.write(request_headers())
            answer = pb.ProcessingResponse.FromString(await call.read())
            call.cancel()
            if answer.HasField("request_headers"):
                mutation = answer.request_headers.response.header_mutation
                return str(mutation.set_headers[0].header.raw_value.decode())
            await asyncio.sleep(0.05)


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
