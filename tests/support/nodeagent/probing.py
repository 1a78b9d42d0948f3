"""Carries out the actions of probes and lifecycle hooks."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp

from support.nodeagent.probes import Action, Exec, Grpc, HttpGet, Sleep, TcpSocket, port_number
from support.nodeagent.processes import Process, ProcessStartError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from support.nodeagent.commands import Launch

_TAIL_BYTES: Final = 300
_SUCCESS: Final = range(200, 400)
_GRPC_OPTIONS: Final = (
    # Each probe asks anew: no proxy of the developer's shell, no remembered back-off.
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an action; the message says why it failed."""

    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The container that is asked."""

    container: Mapping[str, Any]
    address: str
    launch: Launch
    records: Path


class Prober:
    """Asks containers. Open it once and share it: ``async with Prober() as prober``."""

    async def __aenter__(self) -> Self:
        # A kubelet does not verify the certificate of an HTTPS probe: it asks whether the
        # container answers, and sends nothing of worth.
        unverified = ssl.create_default_context()
        unverified.check_hostname = False
        unverified.verify_mode = ssl.CERT_NONE
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0, ssl=unverified),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "kube-probe/1.36", "Accept": "*/*"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, action: Action, target: Target, timeout_s: float) -> Answer:
        """Carry out the action; too late, refused or broken is an answer, not an exception."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._carry_out(action, target)
        except TimeoutError:
            return Answer(ok=False, message=f"no answer within {timeout_s:g} s")
        except aiohttp.ClientConnectorError as error:
            return Answer(ok=False, message=f"{error.host}:{error.port}: {error.os_error}")
        except (OSError, ValueError, aiohttp.ClientError, ProcessStartError) as error:
            return Answer(ok=False, message=str(error) or type(error).__name__)

    async def _carry_out(self, action: Action, target: Target) -> Answer:
        match action:
            case HttpGet():
                return await self._http(action, target)
            case TcpSocket():
                return await _tcp(action, target)
            case Exec():
                return await _exec(action, target)
            case Grpc():
                return await _grpc(action, target)
            case Sleep():
                await asyncio.sleep(action.seconds)
                return Answer(ok=True)

    async def _http(self, action: HttpGet, target: Target) -> Answer:
        host = action.host or target.address
        port = port_number(target.container, action.port)
        path = action.path if action.path.startswith("/") else f"/{action.path}"
        url = f"{action.scheme}://{host}:{port}{path}"
        async with self._session.get(
            url, headers=list(action.headers), allow_redirects=False
        ) as response:
            if response.status in _SUCCESS:
                return Answer(ok=True)
            return Answer(ok=False, message=f"GET {url} answered {response.status}")


async def _tcp(action: TcpSocket, target: Target) -> Answer:
    host = action.host or target.address
    _, writer = await asyncio.open_connection(host, port_number(target.container, action.port))
    writer.close()
    return Answer(ok=True)


async def _exec(action: Exec, target: Target) -> Answer:
    spec = target.launch.inside(action.command)
    spec.log.unlink(missing_ok=True)
    process = Process.start(spec, target.records)
    try:
        code = await process.wait()
    finally:
        if process.running:
            # Too late, or nobody asks any more: it is not left to end by itself.
            process.kill()
            await process.wait()
    if code == 0:
        return Answer(ok=True)
    tail = spec.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()
    return Answer(ok=False, message=f"{spec.argv[0]} ended with {code}: {tail}")


async def _grpc(action: Grpc, target: Target) -> Answer:
    # Loading gRPC takes a quarter of a second: only a node with such a probe pays it.
    import grpc.aio  # noqa: PLC0415
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    where = f"{target.address}:{action.port}"
    async with grpc.aio.insecure_channel(where, options=_GRPC_OPTIONS) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=action.service))
        except grpc.aio.AioRpcError as error:
            return Answer(ok=False, message=f"{where}: {error.code().name} {error.details()}")
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return Answer(ok=name == "SERVING", message=f"{where}: health status {name}")
