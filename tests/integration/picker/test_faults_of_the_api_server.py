"""The API server away, and pools that vanish: the picker serves on as it can, and says so."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import grpc
import yaml

from inference_common.kube import INFERENCEPOOL_X
from inference_picker import wire
from support import manifests
from support.picker_rig import RECOMMENDED, envoy_server
from support.served_picker import Served, picked, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from support.cluster.client import ClusterClient
    from support.scenario import Scenario

LABELS = {"app": "m"}


class Way:
    """A TCP connection to the API server that can be cut and mended."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def mend(self) -> None:
        # On the API server's own address, for which its certificate is valid.
        self._server = await asyncio.start_server(self._pass, self._host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, self._port)
        both = {writer, back}
        self._open |= both
        with contextlib.suppress(OSError):
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        self._open -= both


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def way_of(cluster: ClusterClient, directory: Path) -> AsyncIterator[tuple[Way, Path]]:
    """A way that can be cut, and the kubeconfig that takes it."""
    config: dict[str, Any] = yaml.safe_load(Path(cluster.kubeconfig).read_text())  # noqa: ASYNC240
    server = urlsplit(config["clusters"][0]["cluster"]["server"])
    assert server.hostname is not None
    assert server.port is not None
    way = Way(server.hostname, server.port)
    await way.mend()
    config["clusters"][0]["cluster"]["server"] = f"https://{server.hostname}:{way.port}"
    path = directory / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    try:
        yield way, path
    finally:
        await way.cut()


async def page(picker: Served, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"{picker.pages}/{path}") as found:
        return found.status, await found.text()


async def staleness_s(picker: Served) -> float:
    _, text = await page(picker, "metrics")
    name = "inference_picker_source_staleness_seconds{"
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(name))


async def until_stale(picker: Served, condition: Callable[[float], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition(await staleness_s(picker)):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


def flags(scenario: Scenario, kubeconfig: Path | str) -> tuple[str, ...]:
    return (
        *("--pool", "pool", "--namespace", scenario.namespace, "--insecure"),
        *("--pool-group", INFERENCEPOOL_X.group, "--kubeconfig", str(kubeconfig)),
    )


def pod(container: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "labels": LABELS},
        "spec": {
            "containers": [container or manifests.noop()],
            "terminationGracePeriodSeconds": 0,
        },
    }


async def answered(url: str) -> int:
    """Status of one request through the gateway."""
    body = {"model": "mymodel", "prompt": "Where to?", "max_tokens": 2}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/completions", json=body) as response,
    ):
        await response.read()
        return response.status


async def test_without_the_api_server_picks_go_on_and_the_picker_says_so(
    scenario: Scenario, tmp_path: Path
) -> None:
    server = pod(manifests.simulated_vllm("one"))
    await scenario.apply(manifests.pool("pool", LABELS, resource=INFERENCEPOOL_X), server)
    async with (
        way_of(scenario.cluster, tmp_path) as (way, kubeconfig),
        served(*flags(scenario, kubeconfig)) as picker,
        grpc.aio.insecure_channel(picker.address) as channel,
        envoy_server(
            tmp_path, int(picker.address.rpartition(":")[2]), RECOMMENDED, tls=False
        ) as url,
    ):
        method: Any = channel.stream_stream(f"/{wire.SERVICE}/{wire.METHOD}")
        await picker.until_status("readyz", 200)
        before = await picked(method)
        assert await answered(url) == 200
        assert await staleness_s(picker) == 0

        await way.cut()
        await until_stale(picker, lambda seconds: seconds > 0)

        assert await picked(method) == before
        assert await answered(url) == 200
        status, text = await page(picker, "readyz")
        assert status == 200
        assert "the API server is away" in text

        await way.mend()
        await until_stale(picker, lambda seconds: seconds == 0)
        assert await picked(method) == before
        assert await answered(url) == 200


async def test_a_pool_that_is_deleted_makes_the_picker_unready_until_it_is_back(
    scenario: Scenario,
) -> None:
    pool = manifests.pool("pool", LABELS, resource=INFERENCEPOOL_X)
    await scenario.apply(pool, pod())
    async with (
        served(*flags(scenario, scenario.cluster.kubeconfig)) as picker,
        grpc.aio.insecure_channel(picker.address) as channel,
    ):
        method: Any = channel.stream_stream(f"/{wire.SERVICE}/{wire.METHOD}")
        await picker.until_status("readyz", 200)
        before = await picked(method)

        await scenario.kube.delete(INFERENCEPOOL_X, "pool", scenario.namespace)
        await picker.until_status("readyz", 503)
        _, text = await page(picker, "readyz")
        assert "does not exist" in text

        await scenario.apply(manifests.pool("pool", LABELS, resource=INFERENCEPOOL_X))
        await picker.until_status("readyz", 200)
        assert await picked(method) == before
