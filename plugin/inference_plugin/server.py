"""The plugin server's process: socket, health, metrics, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import start_http_server

from inference_common.kube import Kube
from inference_plugin._pb import traffic_router_pb2 as pb
from inference_plugin._pb import traffic_router_pb2_grpc as pb_grpc
from inference_plugin.cluster import Cluster
from inference_plugin.events import Recorder
from inference_plugin.keepers import Keepers
from inference_plugin.locks import ObjectLocks, WaitSlots
from inference_plugin.servicer import Servicer
from inference_plugin.telemetry import Metrics
from inference_plugin.tools import Tools

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inference_plugin.carriers import Permissions

_log = structlog.get_logger(__name__)

_WAIT_SLOTS: Final = 5
"""Calls that may wait at once: half of the controller's ten workers (--rollout-threads)."""
_GRACE_S: Final = 5.0
_SERVICE: Final = pb.DESCRIPTOR.services_by_name["TrafficRouter"].full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line says. ``metrics`` is (host, port), None for no metrics."""

    socket: Path
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
    keepers = Keepers(
        Tools(
            cluster=cluster,
            recorder=recorder,
            metrics=metrics,
            locks=ObjectLocks(),
            slots=WaitSlots(_WAIT_SLOTS),
            permissions=settings.permissions,
        )
    )
    stack.push_async_callback(keepers.stop)
    await stack.enter_async_context(cluster)
    # Bound before the caches are full: the bridge gets a clear answer at once, and health says
    # when the server is ready.
    path = settings.socket
    free_socket(path)
    server = aio.server()
    pb_grpc.add_TrafficRouterServicer_to_server(Servicer(cluster, keepers, metrics), server)
    states = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(states, server)
    await states.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    await states.set(_SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    path.chmod(0o660)
    stack.callback(lambda: path.unlink(missing_ok=True))
    _log.info("listening", socket=str(path), api_server=kube.host)
    synced = asyncio.get_running_loop().create_task(cluster.synced())
    stopping = asyncio.get_running_loop().create_task(stop.wait())
    await asyncio.wait({synced, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not stop.is_set():
        keepers.wake_all()
        await states.set("", health_pb2.HealthCheckResponse.SERVING)
        await states.set(_SERVICE, health_pb2.HealthCheckResponse.SERVING)
        _log.info("ready")
        await stopping
    synced.cancel()
    stopping.cancel()
    _log.info("stopping", grace_s=_GRACE_S)
    await states.enter_graceful_shutdown()
    await server.stop(_GRACE_S)


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
