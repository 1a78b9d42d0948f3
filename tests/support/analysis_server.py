"""The Web provider's server beside a cluster, and a Prometheus that fails as it is told."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import yaml
from aiohttp import web

from inference_common.kube import EVENT, ROLLOUT
from inference_common.watching import WatchCache
from support import analysed as a
from support.scenario import TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from support.scenario import Scenario

PLAIN: Final[dict[str, Any]] = {
    "gates": [{"metric": "e2e", "statistic": "mean", "margin": 1.5, "harmMargin": 1.0}],
    "grossMetrics": ["e2e"],
    "grossRatio": 2.5,
}
"""A policy under which servers that share busy cores are alike, and one 8 times as slow is not."""
DOUBTFUL: Final[dict[str, Any]] = {
    "mode": "prove",
    # To show that errors differ by less than .01 points takes 30,000 requests.
    "gates": [{"metric": "errors", "statistic": "rate", "margin": 0.0001}],
    "grossMetrics": ["e2e"],
    "grossRatio": 2.5,
}
"""A policy that a few hundred requests leave undecided."""
_PARTIAL: Final = {
    "status": "success",
    "warnings": ["store gateway 2 of 3 did not answer"],
    "data": {"resultType": "matrix", "result": []},
}


@contextlib.asynccontextmanager
async def serving(
    scenario: Scenario, folder: Path, port: int, **sections: Any
) -> AsyncIterator[str]:
    """``analysis serve`` with these sections of its file; yields its URL."""
    config = folder / "analysis.yaml"
    known = {"prometheus": a.values(scenario)["prometheus"]}
    config.write_text(yaml.safe_dump(known | sections))
    address = f"127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(a.COMMAND, "analysis", "serve", "--config", config, "--address", address),
            *("--kubeconfig", scenario.cluster.kubeconfig),
            stderr=log,
        )
        try:
            await _until_ready(f"http://{address}/readyz", process)
            yield f"http://{address}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            assert await process.wait() == 0, (folder / "log").read_text()


async def _until_ready(url: str, process: asyncio.subprocess.Process) -> None:
    """Argo calls a server that is not there yet an Error, and waits 10 s after it."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(TIMEOUT_S):
        while process.returncode is None:
            try:
                async with session.get(url) as response:
                    if response.ok:
                        return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.1)


async def until_waiting(scenario: Scenario, run: str) -> None:
    """Return when the AnalysisRun's verdict waits for a person, as its Event says."""

    def waits(event: dict[str, Any]) -> bool:
        return (event["reason"], event["involvedObject"]["name"]) == ("AnalysisWaiting", run)

    async with WatchCache(scenario.kube, EVENT, scenario.namespace) as cache:
        await cache.synced()
        await cache.until(lambda found: any(waits(event) for event in found.items()), TIMEOUT_S)


async def until_doubted(scenario: Scenario, rollout: str = "chat") -> None:
    """Return when the Rollout is paused by an inconclusive AnalysisRun."""

    def paused(obj: dict[str, Any] | None) -> bool:
        conditions = (obj or {}).get("status", {}).get("pauseConditions") or []
        return any(found["reason"] == "InconclusiveAnalysisRun" for found in conditions)

    await scenario.until(ROLLOUT, rollout, paused, what="a pause for doubt")


class Front:
    """What stands before Prometheus: it lets requests through, or fails in one of three ways."""

    def __init__(self, real: str) -> None:
        self.url = ""
        self._real = real
        self._mode = "through"
        self._changed = asyncio.Event()

    def become(self, mode: str) -> None:
        """``through``, ``broken``, ``slow`` or ``partial`` from now on."""
        self._mode = mode
        self._changed.set()
        self._changed = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        if self._mode == "slow":
            await self._changed.wait()
        if self._mode == "partial":
            return web.json_response(_PARTIAL)
        if self._mode != "through":
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        url = f"{self._real}{request.rel_url}"
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, url, data=await request.read()) as found,
        ):
            body = await found.read()
            return web.Response(body=body, status=found.status, content_type=found.content_type)


@contextlib.asynccontextmanager
async def fronted(scenario: Scenario) -> AsyncIterator[Front]:
    """A front before the cluster's Prometheus."""
    front = Front(scenario.cluster.prometheus)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", front.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        front.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield front
    finally:
        front.become("broken")
        await runner.cleanup()


async def until_error(scenario: Scenario, saying: str = "") -> None:
    """Return when the last measurement of the only AnalysisRun is an Error that says this."""

    def found(runs: Sequence[dict[str, Any]]) -> bool:
        results = runs[0].get("status", {}).get("metricResults") if runs else None
        if not results or not results[0].get("measurements"):
            return False
        last = results[0]["measurements"][-1]
        return last["phase"] == "Error" and saying in last.get("message", "")

    await a.until_runs(scenario, found, what=f"an Error that says {saying!r}", timeout_s=240.0)
