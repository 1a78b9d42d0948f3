"""The plugin server's process: socket, health, metrics, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import start_http_server

from inference_common.errors import KubeError
from inference_common.kube import Kube
from inference_plugin._pb import traffic_router_pb2 as pb
from inference_plugin._pb import traffic_router_pb2_grpc as pb_grpc
from inference_plugin.cluster import Cluster
from inference_plugin.counters import Counters
from inference_plugin.events import Recorder
from inference_plugin.keepers import Keepers
from inference_plugin.leadership import AlwaysLeads, Leadership
from inference_plugin.locks import ObjectLocks, WaitSlots
from inference_plugin.servicer import Servicer
from inference_plugin.telemetry import Metrics
from inference_plugin.tls import CertificateFiles, Certificates, KnownCallers
from inference_plugin.tools import Tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from inference_plugin.carriers import Permissions

_log = structlog.get_logger(__name__)

_WAIT_SLOTS: Final = 5
"""Calls that may wait at once: half of the controller's ten workers (--rollout-threads)."""
_GRACE_S: Final = 5.0
_COLLECTIONS: Final = (5_000, 20, 100)
"""Thresholds of the garbage collector. Almost nothing here is garbage in a cycle: collections of
the young take half a millisecond, those of all that was read since the start next to never happen.
"""
_IN_CLUSTER: Final = "KUBERNETES_SERVICE_HOST"
_RELEASE_S: Final = 2.0
_PING_MS: Final = 5000
"""Below the bridge's interval between pings (bridge/connect.go), which a server may refuse."""
_SERVICE: Final = pb.DESCRIPTOR.services_by_name["TrafficRouter"].full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line says. ``metrics`` is (host, port), None for no metrics.

    At least one of ``socket`` and ``address`` (HOST:PORT, with ``certificates``) is served.
    ``callers`` are the names of client certificates that are let in, none for all that the
    authority has issued. ``lease`` is (namespace, name), None for a server that is alone.
    """

    socket: Path | None = None
    address: str | None = None
    certificates: CertificateFiles | None = None
    callers: frozenset[str] = frozenset()
    connection_age_s: float = 600.0
    lease: tuple[str, str] | None = None
    identity: str = ""
    prometheus: str | None = None
    metrics: tuple[str, int] | None = None
    kubeconfig: str | None = None
    permissions: Permissions


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    metrics = Metrics(registry)
    kube = await Kube.connect(settings.kubeconfig)
    try:
        async with contextlib.AsyncExitStack() as stack:
            if settings.metrics is not None:
                stack.callback(_serve_metrics(registry, settings.metrics))
            await _serve_router(kube, metrics, settings, stop, stack)
    finally:
        await kube.close()
    _log.info("stopped")


async def _serve_router(
    kube: Kube,
    metrics: Metrics,
    settings: Settings,
    stop: asyncio.Event,
    stack: contextlib.AsyncExitStack,
) -> None:
    recorder = Recorder(kube, metrics)
    writer = asyncio.get_running_loop().create_task(recorder.run(), name="events")
    stack.callback(writer.cancel)
    cluster = Cluster(kube, metrics)
    leadership = _leadership(kube, settings, lambda: keepers.wake_all())  # noqa: PLW0108
    keepers = Keepers(
        Tools(
            cluster=cluster,
            recorder=recorder,
            metrics=metrics,
            locks=ObjectLocks(),
            slots=WaitSlots(_WAIT_SLOTS),
            permissions=settings.permissions,
            counters=Counters(settings.prometheus) if settings.prometheus else None,
            leadership=leadership,
        )
    )
    stack.push_async_callback(keepers.stop)
    await stack.enter_async_context(cluster)
    # Bound before the caches are full: the bridge gets a clear answer at once, and health says
    # when the server is ready.
    server = _server(settings)
    servicer = Servicer(cluster, keepers, metrics, leadership)
    pb_grpc.add_TrafficRouterServicer_to_server(servicer, server)
    states = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(states, server)
    await states.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    await states.set(_SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
    await _listen(server, settings, stack)
    _log.info(
        "listening",
        **({"socket": str(settings.socket)} if settings.socket else {}),
        **({"address": settings.address} if settings.address else {}),
        api_server=kube.host,
    )
    synced = asyncio.get_running_loop().create_task(cluster.synced())
    stopping = asyncio.get_running_loop().create_task(stop.wait())
    await asyncio.wait({synced, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not stop.is_set():
        keepers.wake_all()
        # What has been read stays for long: a collection that walks through all of it would stop
        # the calls for tens of milliseconds with some hundred Rollouts, again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECTIONS)
        if isinstance(leadership, Leadership):
            # Only a server that knows the cluster may look after it.
            await stack.enter_async_context(_competing(leadership))
        await states.set("", health_pb2.HealthCheckResponse.SERVING)
        await states.set(_SERVICE, health_pb2.HealthCheckResponse.SERVING)
        _log.info("ready")
        await stopping
    synced.cancel()
    stopping.cancel()
    _log.info("stopping", grace_s=_GRACE_S)
    await states.enter_graceful_shutdown()
    await server.stop(_GRACE_S)


def _leadership(
    kube: Kube, settings: Settings, woken: Callable[[], None]
) -> Leadership | AlwaysLeads:
    if settings.lease is None:
        return AlwaysLeads()
    namespace, name = settings.lease
    return Leadership(
        kube,
        namespace,
        name,
        identity=settings.identity or default_identity(os.environ, socket.gethostname()),
        on_change=lambda leads: woken() if leads else None,
    )


def default_identity(environment: Mapping[str, str], host: str) -> str:
    """The name of this server in the Lease.

    In a pod that is the pod's, so that a container that was restarted holds what it held; elsewhere
    two servers may share a host, and a number tells them apart.
    """
    return host if _IN_CLUSTER in environment else f"{host}_{secrets.token_hex(4)}"


@contextlib.asynccontextmanager
async def _competing(leadership: Leadership) -> AsyncIterator[None]:
    """Compete for the Lease; give it up at the end, so that another server need not wait."""
    task = asyncio.get_running_loop().create_task(leadership.run(), name="lease")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        try:
            async with asyncio.timeout(_RELEASE_S):
                await leadership.release()
        except (KubeError, TimeoutError) as error:
            _log.warning("lease not released", lease=leadership.lease, error=str(error))


def _server(settings: Settings) -> aio.Server:
    if settings.address is None:
        return aio.server()
    age_ms = round(settings.connection_age_s * 1000)
    options = [
        # A connection outlives its certificate: it is renewed now and then, between two calls.
        ("grpc.max_connection_age_ms", age_ms),
        ("grpc.max_connection_age_grace_ms", round(_GRACE_S * 1000)),
        # The bridge pings, to notice a server that is gone without a word.
        ("grpc.http2.min_ping_interval_without_data_ms", _PING_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # A second server on the same port would get half of the calls.
        ("grpc.so_reuseport", 0),
    ]
    return aio.server(interceptors=(KnownCallers(settings.callers),), options=options)


async def _listen(server: aio.Server, settings: Settings, stack: contextlib.AsyncExitStack) -> None:
    """Bind what is to be served, and start. Raises RuntimeError and CertificateError."""
    path = settings.socket
    if path is not None:
        free_socket(path)
        server.add_insecure_port(f"unix:{path}")
    if settings.address is not None and settings.certificates is not None:
        credentials = Certificates(settings.certificates).credentials()
        try:
            server.add_secure_port(settings.address, credentials)
        except RuntimeError as error:
            raise RuntimeError(
                f"{settings.address} can't be listened on: {error}. Choose another --address."
            ) from error
    await server.start()
    if path is not None:
        path.chmod(0o660)
        stack.callback(lambda: path.unlink(missing_ok=True))


def free_socket(path: Path) -> None:
    """Remove a socket file that nobody listens on any more.

    Raises RuntimeError when somebody does, or when the path is something else.
    """
    if not path.exists() and not path.is_socket():
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    if not path.is_socket():
        raise RuntimeError(
            f"{path} exists and is no socket. Remove it, or choose another --socket."
        )
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
    raise RuntimeError(f"Another process listens on {path}. Stop it, or choose another --socket.")


def _serve_metrics(registry: CollectorRegistry, address: tuple[str, int]) -> Callable[[], None]:
    host, port = address
    server, thread = start_http_server(port, addr=host, registry=registry)
    _log.info("metrics", address=f"{host}:{server.server_address[1]}")

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=2)

    return close
