"""A proxy in front of the API server: slow, refusing, or a place to stop a write at.

It speaks plain HTTP on loopback and authenticates upstream as one user of the cluster, so that a
component's kubeconfig needs nothing but its address.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import yaml
from aiohttp import web

from inference_plugin._pb import traffic_router_pb2 as pb
from inference_plugin._pb import traffic_router_pb2_grpc as pb_grpc
from support.cluster.layout import Layout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from support.cluster.client import ClusterClient

    Object = dict[str, Any]
    Hook = Callable[["Asked"], Awaitable[web.Response | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it came; ``at`` is in seconds of the event loop's clock."""

    method: str
    path: str
    query: str
    at: float

    @property
    def writes(self) -> bool:
        """Whether it would change something, dry runs and Events aside."""
        return self.method != "GET" and "dryRun" not in self.query and "/events" not in self.path


class ApiProxy:
    """Use as an async context manager. ``user`` names a kubeconfig of the cluster."""

    def __init__(self, cluster: ClusterClient, user: str) -> None:
        """Nothing is served before the context is entered."""
        self.delay_s = 0.0
        self.hook: Hook | None = None
        self.asked: list[Asked] = []
        path = Layout(cluster.state_dir).kubeconfig(user)
        self._config: Object = yaml.safe_load(path.read_text())
        self._upstream = str(self._config["clusters"][0]["cluster"]["server"])
        self._stack = contextlib.AsyncExitStack()
        self.url = ""

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._context(), limit=0)
        session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        self._session = await self._stack.enter_async_context(session)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def kubeconfig(self) -> str:
        """A kubeconfig that leads here."""
        document = self._config | {
            "clusters": [{"name": "local", "cluster": {"server": self.url}}],
            "users": [{"name": "local", "user": {}}],
        }
        return yaml.safe_dump(document, sort_keys=False)

    def _context(self) -> ssl.SSLContext:
        def decoded(value: str) -> bytes:
            return base64.b64decode(value)

        user = self._config["users"][0]["user"]
        authority = decoded(self._config["clusters"][0]["cluster"]["certificate-authority-data"])
        context = ssl.create_default_context(cadata=authority.decode())
        with tempfile.NamedTemporaryFile() as pair:
            pair.write(decoded(user["client-certificate-data"]) + b"\n")
            pair.write(decoded(user["client-key-data"]))
            pair.flush()
            context.load_cert_chain(pair.name)
        return context

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        now = asyncio.get_running_loop().time()
        asked = Asked(method=request.method, path=request.path, query=request.query_string, at=now)
        self.asked.append(asked)
        body = await request.read()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.hook is not None:
            refused = await self.hook(asked)
            if refused is not None:
                return refused
        headers = {
            name: value
            for name, value in request.headers.items()
            if name in {"Accept", "Content-Type", "User-Agent"}
        }
        limit = aiohttp.ClientTimeout(total=None)
        async with self._session.request(
            request.method,
            f"{self._upstream}{request.path_qs}",
            data=body,
            headers=headers,
            timeout=limit,
        ) as answer:
            kept = {"Content-Type": answer.headers.get("Content-Type", "application/json")}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            # A watch goes on until one side has enough of it.
            with contextlib.suppress(ConnectionResetError, aiohttp.ClientError):
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            return response


@contextlib.asynccontextmanager
async def plugin_behind(cluster: ClusterClient, proxy: ApiProxy) -> AsyncIterator[None]:
    """The cluster's plugin server, restarted so that it reaches the API server by the proxy."""
    layout = Layout(cluster.state_dir)
    path = layout.kubeconfig("plugin")
    before = path.read_text()
    path.write_text(proxy.kubeconfig())
    try:
        await restarted(cluster)
        yield
    finally:
        path.write_text(before)
        await restarted(cluster)


async def restarted(cluster: ClusterClient) -> None:
    """Kill the plugin server and return once its successor is ready."""
    pid = cluster.signal("plugin")
    await until_ready(cluster, pid)


async def until_ready(cluster: ClusterClient, not_pid: int, timeout_s: float = 120.0) -> None:
    """Return once the plugin server runs as another process than this one, and is ready."""
    async with asyncio.timeout(timeout_s):
        # A process and its readiness can't be watched.
        while cluster.pid("plugin") == not_pid or not await _is_ready(cluster):  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def _is_ready(cluster: ClusterClient) -> bool:
    import grpc.aio  # noqa: PLC0415 - starts threads of its own

    target = f"unix:{Layout(Path(cluster.state_dir)).plugin_socket}"
    async with grpc.aio.insecure_channel(target) as channel:
        stub = pb_grpc.TrafficRouterStub(channel)
        try:
            answer = await stub.Describe(pb.DescribeRequest(), timeout=5)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)
