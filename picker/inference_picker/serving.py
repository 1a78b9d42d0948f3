"""Puts the picker together and runs it: gRPC, health, metrics, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import secrets
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import grpc
import structlog

from inference_common.kube import Kube
from inference_common.shares import ACKNOWLEDGEMENT_PATH
from inference_picker.cluster import ClusterSource
from inference_picker.director import Director, Settings
from inference_picker.endpoint_file import FileSource
from inference_picker.errors import ConfigError
from inference_picker.exchange import DEFAULT_MAX_BODY_BYTES
from inference_picker.gateway import Gateways
from inference_picker.health import Health, HealthPort
from inference_picker.listing import ModelLister
from inference_picker.metrics import Metrics, PickLogCollector, PoolCollector, ScrapeCollector
from inference_picker.pages import MetricsPage, served_pages, shares_page
from inference_picker.recording import Recorder
from inference_picker.sampling import Sampling
from inference_picker.scheduling_series import SchedulingCollector
from inference_picker.scraping import Scraper
from inference_picker.servicer import ExternalProcessor
from inference_picker.shares_series import SharesCollector
from inference_picker.tls import Tls, credentials
from inference_picker.witnesses import open_witnesses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from inference_picker.pool import Source

_log = structlog.get_logger(__name__)

DEFAULT_WATCH_SHARE: Final = 0.05
DEFAULT_PICK_LOG_BYTES: Final = 100 * 1000 * 1000

_MESSAGE_BYTES: Final = 64 * 1024 * 1024
_READY_CHECK_S: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the server runs."""

    address: str
    """``ip:port`` of ext_proc and gRPC health; port 0 lets the system choose."""
    metrics_address: str
    """``ip:port`` of /metrics, /healthz and /readyz."""
    pool: str = ""
    """The pool's name, for series and logs."""
    namespace: str = ""
    settings: Settings = field(default_factory=Settings)
    watch_share: float = DEFAULT_WATCH_SHARE
    """Share of the answers of neither canary nor control whose tokens are watched, 0 to 1."""
    tls: Tls | None = field(default_factory=Tls)
    """None for plaintext."""
    health_address: str | None = None
    """``ip:port`` of plaintext gRPC health; None for none."""
    scrape_interval_s: float = 0.2
    """Time between two looks at an endpoint's metrics page; 0 for none."""
    scrape_path: str = "/metrics"
    pick_log: Path | None = None
    """File for a JSON line on each request; None for none."""
    pick_log_bytes: int = DEFAULT_PICK_LOG_BYTES
    """Size above which the file is renamed to ``NAME.1``."""
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    models_interval_s: float = 2.0
    drain_delay_s: float = 3.0
    """Time between readiness off and no new streams, for the gateways to notice."""
    drain_timeout_s: float = 120.0
    """Time for the streams that are left."""


@dataclass(slots=True, kw_only=True)
class Running:
    """A picker that serves."""

    port: int
    metrics_port: int
    director: Director
    metrics: Metrics
    server: grpc.aio.Server
    health: Health
    scraper: Scraper
    health_port: int | None = None


@contextlib.asynccontextmanager
async def serving(
    source: Source, options: Options, *, is_ready: Callable[[], bool] = lambda: True
) -> AsyncIterator[Running]:
    """A picker over the source, until the block ends; then every stream is cut."""
    metrics = Metrics()
    # Several pickers of one pool must not draw the same targets at the same time.
    start = secrets.randbits(64)
    director = Director(source=source, metrics=metrics, settings=options.settings, start=start)
    recorder = Recorder(metrics)
    scraper = Scraper(
        source.snapshot,
        director.note_readings,
        interval_s=options.scrape_interval_s,
        path=options.scrape_path,
    )
    async with contextlib.AsyncExitStack() as stack:
        witnesses = stack.enter_context(
            open_witnesses(options.pick_log, max_bytes=options.pick_log_bytes)
        )
        in_flight = director.flights.counts
        for collector in (
            PoolCollector(
                source=source, in_flight=in_flight, labels=recorder.endpoints, name=options.pool
            ),
            ScrapeCollector(scraper),
            SharesCollector(source=source, unmet=director.unmet),
            PickLogCollector(witnesses.log),
            SchedulingCollector(director, source),
        ):
            metrics.registry.register(collector)
        server = _server(options)
        health = Health()
        health.add_to(server)
        processor = ExternalProcessor(
            director,
            recorder=recorder,
            gateways=Gateways(metrics),
            sampling=Sampling(share=options.watch_share, start=start),
            witnesses=witnesses,
            max_body_bytes=options.max_body_bytes,
        )
        server.add_generic_rpc_handlers((processor.handler(),))
        running = Running(
            port=_bound(server, options),
            metrics_port=0,
            director=director,
            metrics=metrics,
            server=server,
            health=health,
            scraper=scraper,
        )
        await health.set_ready(ready=is_ready())
        page = MetricsPage(director, recorder)

        def why_unready() -> str | None:
            return None if is_ready() else f"not ready, or draining: {source.detail()}\n"

        pages = {ACKNOWLEDGEMENT_PATH: shares_page(source, f"{options.namespace}/{options.pool}")}
        running.metrics_port = await stack.enter_async_context(
            served_pages(options.metrics_address, page.show, why_unready, pages, source.detail)
        )
        if options.health_address is not None:
            health_port = HealthPort(health, options.health_address)
            running.health_port = (await stack.enter_async_context(health_port)).port
        if options.scrape_interval_s:
            task = asyncio.create_task(scraper.run(), name="scrape")
            stack.push_async_callback(_cancelled, task)
        await server.start()
        try:
            yield running
        finally:
            await server.stop(grace=None)


def _server(options: Options) -> grpc.aio.Server:
    return grpc.aio.server(
        options=(
            # With it a second picker on the same port would silently take half the streams.
            ("grpc.so_reuseport", 0),
            # A gateway with large buffers sends what it holds in one message: it must be taken in
            # to be answered with 413. Beyond this limit gRPC refuses it, and the client gets a 500.
            ("grpc.max_receive_message_length", max(_MESSAGE_BYTES, 2 * options.max_body_bytes)),
        )
    )


def _bound(server: grpc.aio.Server, options: Options) -> int:
    """The port of ext_proc. Raises ConfigError where the address can't be had."""
    try:
        if options.tls is None:
            return server.add_insecure_port(options.address)
        now = dt.datetime.now(dt.UTC)
        return server.add_secure_port(options.address, credentials(options.tls, now))
    except RuntimeError as error:
        raise ConfigError(f"--address {options.address}: can't be bound: {error}") from error


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def serve_pool(
    *, pool: str, namespace: str, group: str, kubeconfig: str | None, options: Options
) -> None:
    """Serve one pool of the cluster until SIGTERM or SIGINT, then drain."""
    kube = await _connect(kubeconfig)
    source = ClusterSource(kube, name=pool, namespace=namespace, group=group)
    try:
        async with source:
            await _serve(source, options)
    finally:
        await kube.close()


async def serve_file(*, endpoints: Path, options: Options) -> None:
    """Serve the endpoints of a file until SIGTERM or SIGINT, then drain. No Kubernetes."""
    source = FileSource(endpoints)
    watching = asyncio.create_task(source.run(), name="watch the file of endpoints")
    try:
        await _serve(source, options)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _serve(source: ClusterSource | FileSource, options: Options) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)

    def is_ready() -> bool:
        return source.is_ready and not stopping.is_set()

    async with serving(source, options, is_ready=is_ready) as running:
        lister = ModelLister(source, interval_s=options.models_interval_s)
        tasks = [
            asyncio.create_task(lister.run(), name="list models"),
            asyncio.create_task(_report_readiness(running, is_ready), name="readiness"),
        ]
        settle_memory()
        _log.info("serving", source=source.detail(), port=running.port)
        await _until_first(stopping, tasks)
        await _drain(running, options)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _connect(kubeconfig: str | None) -> Kube:
    # Part of the client that `Kube.connect` imports in any case, and slow to import.
    from kubernetes.aio.config.config_exception import ConfigException  # noqa: PLC0415

    try:
        return await Kube.connect(kubeconfig)
    except (ConfigException, OSError) as error:
        tried = kubeconfig or "$KUBECONFIG, ~/.kube/config and the pod's service account"
        raise ConfigError(
            f"no way to the API server by {tried}: {error} Name a file by --kubeconfig."
        ) from error


def settle_memory() -> None:
    """Keep the garbage collector away from what lives as long as the process.

    Walking over every loaded module costs as much as the requests in between. What requests
    leave behind has no cycles, as a rule.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def _until_first(stopping: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    """Wait for the signal; a background task that ends before it raises its error here."""
    waiter = asyncio.create_task(stopping.wait())
    done, _ = await asyncio.wait({waiter, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    for task in done - {waiter}:
        task.result()
    waiter.cancel()


async def _drain(running: Running, options: Options) -> None:
    await running.health.set_ready(ready=False)
    in_flight = sum(running.director.flights.counts.values())
    _log.info("draining", in_flight=in_flight)
    await asyncio.sleep(options.drain_delay_s)
    await running.server.stop(grace=options.drain_timeout_s)
    _log.info("stopped", cut=sum(running.director.flights.counts.values()))


async def _report_readiness(running: Running, is_ready: Callable[[], bool]) -> None:
    told: bool | None = None
    while True:
        ready = is_ready()
        if ready != told:
            await running.health.set_ready(ready=ready)
            told = ready
            _log.info("readiness", ready=ready)
        await asyncio.sleep(_READY_CHECK_S)
