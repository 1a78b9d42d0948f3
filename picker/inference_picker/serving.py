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

from inference_common.errors import KubeUnconfigured
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
from inference_picker.namespaces import NamespaceWatch
from inference_picker.pages import MetricsPage, PoolSeries, served_pages, shares_page
from inference_picker.peer_series import PeerCollector
from inference_picker.readiness import of_all, of_pool
from inference_picker.recording import Recorder
from inference_picker.sampling import Sampling
from inference_picker.scheduling_series import SchedulingCollector
from inference_picker.scraping import Scraper
from inference_picker.servicer import ExternalProcessor
from inference_picker.shares_series import SharesCollector
from inference_picker.tls import Tls, credentials
from inference_picker.witnesses import open_witnesses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from inference_picker.pool import Source
    from inference_picker.readiness import Readiness
    from inference_picker.witnesses import Witnesses

_log = structlog.get_logger(__name__)

DEFAULT_WATCH_SHARE: Final = 0.05
DEFAULT_PICK_LOG_BYTES: Final = 100 * 1000 * 1000

_MESSAGE_BYTES: Final = 64 * 1024 * 1024
_READY_CHECK_S: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a pool is served, and the process that does it."""

    address: str
    """``ip:port`` of the pool's ext_proc and gRPC health; port 0 lets the system choose."""
    metrics_address: str
    """``ip:port`` of /metrics, /healthz and /readyz; of the process, as what is marked so below."""
    pool: str = ""
    """The pool's name, for series and logs."""
    namespace: str = ""
    settings: Settings = field(default_factory=Settings)
    watch_share: float = DEFAULT_WATCH_SHARE
    """Share of the answers of neither canary nor control whose tokens are watched, 0 to 1."""
    tls: Tls | None = field(default_factory=Tls)
    """None for plaintext."""
    health_address: str | None = None
    """``ip:port`` of plaintext gRPC health; None for none. Of the process."""
    scrape_interval_s: float = 0.2
    """Time between two looks at an endpoint's metrics page; 0 for none."""
    scrape_path: str = "/metrics"
    scrape_port: int | None = None
    """Port of the metrics pages; None for that of the endpoint."""
    pick_log: Path | None = None
    """File for a JSON line on each request; None for none. Of the process."""
    pick_log_bytes: int = DEFAULT_PICK_LOG_BYTES
    """Size above which the file is renamed to ``NAME.1``."""
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    models_interval_s: float = 2.0
    drain_delay_s: float = 3.0
    """Time between readiness off and no new streams, for the gateways to notice. Of the process."""
    drain_timeout_s: float = 120.0
    """Time for the streams that are left. Of the process."""

    @property
    def full_name(self) -> str:
        """``NS/NAME`` of the pool; empty where it has no name."""
        return f"{self.namespace}/{self.pool}" if self.pool else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedPool:
    """A pool and how it is to be served."""

    source: Source
    options: Options
    readiness: Callable[[], Readiness]


@dataclass(slots=True, kw_only=True)
class Running:
    """A pool that is served."""

    port: int
    metrics_port: int
    director: Director
    metrics: Metrics
    server: grpc.aio.Server
    health: Health
    scraper: Scraper
    recorder: Recorder
    served: ServedPool
    health_port: int | None = None


@contextlib.asynccontextmanager
async def serving(
    source: Source, options: Options, *, is_ready: Callable[[], bool] = lambda: True
) -> AsyncIterator[Running]:
    """A picker over one source, until the block ends; then every stream is cut."""
    served = ServedPool(
        source=source,
        options=options,
        readiness=lambda: of_pool(source.detail(), ready=is_ready()),
    )
    async with serving_pools([served]) as (running, _):
        yield running[0]


@contextlib.asynccontextmanager
async def serving_pools(
    pools: Sequence[ServedPool],
) -> AsyncIterator[tuple[list[Running], Health]]:
    """A picker over these pools, until the block ends; then every stream is cut.

    What is of the process is taken from the first one's options. Yields the pools and the
    health of the process.
    """
    options = pools[0].options
    async with contextlib.AsyncExitStack() as stack:
        witnesses = stack.enter_context(
            open_witnesses(options.pick_log, max_bytes=options.pick_log_bytes)
        )
        running = [_prepared(each, witnesses(each.options.full_name)) for each in pools]
        # Of a single pool the process says the same as the pool itself.
        health = running[0].health if len(running) == 1 else Health()
        await report_readiness(running, health)
        metrics_port = await stack.enter_async_context(_pages(running, options))
        health_port: int | None = None
        if options.health_address is not None:
            port = HealthPort(health, options.health_address)
            health_port = (await stack.enter_async_context(port)).port
        for each in running:
            each.metrics_port, each.health_port = metrics_port, health_port
            if each.served.options.scrape_interval_s:
                task = asyncio.create_task(each.scraper.run(), name="scrape")
                stack.push_async_callback(_cancelled, task)
        for each in running:
            await each.server.start()
        try:
            yield running, health
        finally:
            await asyncio.gather(*(each.server.stop(grace=None) for each in running))


def _prepared(served: ServedPool, witnesses: Witnesses) -> Running:
    """A pool's server with all that belongs to it, bound and not started."""
    source, options = served.source, served.options
    metrics = Metrics()
    # Several pickers of one pool must not draw the same targets at the same time.
    start = secrets.randbits(64)
    director = Director(
        source=source,
        metrics=metrics,
        settings=options.settings,
        start=start,
        pool=options.full_name,
    )
    recorder = Recorder(metrics)
    scraper = Scraper(
        source.snapshot,
        director.note_readings,
        interval_s=options.scrape_interval_s,
        path=options.scrape_path,
        port=options.scrape_port,
    )
    in_flight = director.flights.counts
    for collector in (
        PoolCollector(
            source=source, in_flight=in_flight, labels=recorder.endpoints, name=options.pool
        ),
        ScrapeCollector(scraper),
        SharesCollector(source=source, unmet=director.unmet),
        PickLogCollector(witnesses.log, options.full_name),
        SchedulingCollector(director, source),
        PeerCollector(
            director,
            labels=recorder.endpoints,
            picks=metrics.picks,
            name=options.pool,
            namespace=options.namespace,
        ),
    ):
        metrics.registry.register(collector)
    server = _server(options)
    health = Health()
    health.add_to(server)
    processor = ExternalProcessor(
        director,
        recorder=recorder,
        gateways=Gateways(metrics, options.full_name),
        sampling=Sampling(share=options.watch_share, start=start),
        witnesses=witnesses,
        max_body_bytes=options.max_body_bytes,
    )
    server.add_generic_rpc_handlers((processor.handler(),))
    return Running(
        port=_bound(server, options),
        metrics_port=0,
        director=director,
        metrics=metrics,
        server=server,
        health=health,
        scraper=scraper,
        recorder=recorder,
        served=served,
    )


def _pages(
    running: Sequence[Running], options: Options
) -> contextlib.AbstractAsyncContextManager[int]:
    """The HTTP pages about all pools."""
    by_name = {each.served.options.full_name: each for each in running}
    series = [
        PoolSeries(pool=name, director=each.director, recorder=each.recorder)
        for name, each in by_name.items()
    ]

    def readiness(pool: str) -> Readiness | None:
        if not pool:
            return of_all([each.served.readiness() for each in running])
        found = by_name.get(pool)
        return None if found is None else found.served.readiness()

    sources = {name: each.served.source for name, each in by_name.items()}
    pages = {ACKNOWLEDGEMENT_PATH: shares_page(sources)}
    return served_pages(options.metrics_address, MetricsPage(series).show, readiness, pages)


async def report_readiness(running: Sequence[Running], health: Health) -> bool:
    """Tell gRPC health of each pool and of the process; returns whether the process is ready."""
    pools = [(each, each.served.readiness()) for each in running]
    for each, found in pools:
        await each.health.set_ready(ready=found.ready)
        if name := each.served.options.full_name:
            await health.set_service(name, ready=found.ready)
    ready = of_all([found for _, found in pools]).ready
    await health.set_ready(ready=ready)
    return ready


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


async def serve_pools(pools: Sequence[Options], *, group: str, kubeconfig: str | None) -> None:
    """Serve pools of the cluster until SIGTERM or SIGINT, then drain."""
    kube = await _connect(kubeconfig)
    try:
        async with contextlib.AsyncExitStack() as stack:
            namespaces: dict[str, NamespaceWatch] = {}
            sources: list[tuple[ClusterSource, Options]] = []
            for options in pools:
                watch = namespaces.get(options.namespace)
                if watch is None:
                    watch = NamespaceWatch(kube, options.namespace)
                    namespaces[options.namespace] = await stack.enter_async_context(watch)
                source = ClusterSource(watch, name=options.pool, group=group)
                sources.append((await stack.enter_async_context(source), options))
            await _serve(sources)
    finally:
        await kube.close()


async def serve_file(*, endpoints: Path, options: Options) -> None:
    """Serve the endpoints of a file until SIGTERM or SIGINT, then drain. No Kubernetes."""
    source = FileSource(endpoints)
    watching = asyncio.create_task(source.run(), name="watch the file of endpoints")
    try:
        await _serve([(source, options)])
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _serve(sources: Sequence[tuple[ClusterSource | FileSource, Options]]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)

    def served(source: ClusterSource | FileSource, options: Options) -> ServedPool:
        def readiness() -> Readiness:
            ready = source.is_ready and not stopping.is_set()
            return of_pool(source.detail(), ready=ready, known=source.is_known)

        return ServedPool(source=source, options=options, readiness=readiness)

    async with serving_pools([served(*each) for each in sources]) as (running, health):
        tasks = [asyncio.create_task(_keep_readiness(running, health), name="readiness")]
        for source, options in sources:
            lister = ModelLister(source, interval_s=options.models_interval_s)
            tasks.append(asyncio.create_task(lister.run(), name="list models"))
        settle_memory()
        for each in running:
            _log.info("serving", source=each.served.source.detail(), port=each.port)
        await _until_first(stopping, tasks)
        await _drain(running, health)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _connect(kubeconfig: str | None) -> Kube:
    try:
        return await Kube.connect(kubeconfig)
    except KubeUnconfigured as error:
        raise ConfigError(str(error)) from error


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


async def _drain(running: Sequence[Running], health: Health) -> None:
    options = running[0].served.options
    await report_readiness(running, health)
    _log.info("draining", in_flight=_in_flight(running))
    await asyncio.sleep(options.drain_delay_s)
    grace = options.drain_timeout_s
    await asyncio.gather(*(each.server.stop(grace=grace) for each in running))
    _log.info("stopped", cut=_in_flight(running))


def _in_flight(running: Sequence[Running]) -> int:
    return sum(sum(each.director.flights.counts.values()) for each in running)


async def _keep_readiness(running: Sequence[Running], health: Health) -> None:
    told: bool | None = None
    while True:
        ready = await report_readiness(running, health)
        if ready != told:
            told = ready
            _log.info("readiness", ready=ready)
        await asyncio.sleep(_READY_CHECK_S)
