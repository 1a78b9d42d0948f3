"""The prober's HTTP side and its loop."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from inference_plugin.prober.decision import Answer
from inference_plugin.prober.models import fetcher
from inference_plugin.prober.rounds import Prober

if TYPE_CHECKING:
    from inference_plugin.prober.decision import Probe
    from inference_plugin.prober.rounds import Target

_log = structlog.get_logger(__name__)
_WAITING_INTERVAL_S: Final = 0.5
"""Between rounds while not ready: a release waits for this, and only then."""
_STATES: Final = (*Answer, "unprobed")


class ProberMetrics:
    """The prober's own series, on a registry that is passed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the series."""
        self.registry = registry
        self._ready = Gauge(
            "inference_rollouts_prober_ready",
            "1 while the pool serves the name.",
            registry=registry,
        )
        self._pods = Gauge(
            "inference_rollouts_prober_pods",
            "Ready pods of the pool by the answer to their latest probe.",
            ("answer",),
            registry=registry,
        )
        self._probes = Counter(
            "inference_rollouts_prober_probes",
            "Probes by answer.",
            ("answer",),
            registry=registry,
        )
        for answer in Answer:
            self._probes.labels(answer=answer)

    def count(self, probe: Probe) -> None:
        """Count one probe."""
        self._probes.labels(answer=probe.answer).inc()

    def page(self, prober: Prober) -> bytes:
        """The page of /metrics."""
        self._ready.set(prober.decision.ready)
        for state in _STATES:
            found = sum(1 for pod in prober.pods if (pod.history.latest or "unprobed") == state)
            self._pods.labels(answer=state).set(found)
        return generate_latest(self.registry)


def application(prober: Prober, metrics: ProberMetrics) -> web.Application:
    """/readyz (200 or 503, with the reasons), /healthz, /metrics."""

    async def readyz(_: web.Request) -> web.Response:
        body = json.dumps(prober.report(), indent=1)
        status = 200 if prober.decision.ready else 503
        return web.Response(text=body, status=status, content_type="application/json")

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def page(_: web.Request) -> web.Response:
        return web.Response(
            body=metrics.page(prober),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    app = web.Application()
    app.add_routes(
        [web.get("/readyz", readyz), web.get("/healthz", healthz), web.get("/metrics", page)]
    )
    return app


async def serve(
    target: Target,
    *,
    address: tuple[str, int],
    interval_s: float,
    timeout_s: float,
    kubeconfig: str | None,
    watch: dict[str, Any],
) -> None:
    """Listen, then watch and probe until SIGTERM. ``watch`` are the arguments of PoolWatch."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = ProberMetrics(CollectorRegistry())
    async with aiohttp.ClientSession() as session:
        prober = Prober(target, fetcher(session, timeout_s=timeout_s), on_probe=metrics.count)
        runner = web.AppRunner(application(prober, metrics), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, *address, reuse_port=False).start()
        _log.info("listening", address=f"{address[0]}:{address[1]}")
        probing = asyncio.create_task(_probe_forever(prober, interval_s, kubeconfig, watch))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({probing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        try:
            if probing.done():
                # It ends only by an error, which the process must not outlive.
                probing.result()
        finally:
            probing.cancel()
            await asyncio.wait({probing})
            await runner.cleanup()


async def _probe_forever(
    prober: Prober, interval_s: float, kubeconfig: str | None, watch: dict[str, Any]
) -> None:
    # The Kubernetes client takes longer to import than everything else: the port is open first.
    from inference_common.kube import Kube  # noqa: PLC0415
    from inference_plugin.prober.watch import PoolWatch  # noqa: PLC0415

    kube = await Kube.connect(kubeconfig)
    try:
        async with PoolWatch(kube, **watch) as pool:
            while True:
                await prober.round(await pool.view())
                ready = prober.decision.ready
                await asyncio.sleep(interval_s if ready else min(interval_s, _WAITING_INTERVAL_S))
    finally:
        await kube.close()
