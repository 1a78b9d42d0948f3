"""A Job that loses its pod in the middle of its prompts."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from inference_analysis.argo.store import ledger_name
from inference_common.kube import CONFIGMAP, POD
from support import analysed as a
from support.deployments import hash_addressed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from support.scenario import Scenario

Span = tuple[float, float]


@contextlib.asynccontextmanager
async def mute_model() -> AsyncIterator[str]:
    """URL of an endpoint that takes prompts and never answers."""
    released = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        await released.wait()
        return web.Response(status=503)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        released.set()
        await runner.cleanup()


async def until_probes(
    scenario: Scenario, canary: str, predicate: Callable[[list[Span]], bool], what: str
) -> list[Span]:
    """The probes of the canary's book, once the predicate is true of them."""

    def spans(ledger: dict[str, Any] | None) -> list[Span]:
        text = ((ledger or {}).get("data") or {}).get(f"{canary}.json")
        return [(begun, ended) for begun, ended in json.loads(text)["probes"]] if text else []

    found = await scenario.until(
        CONFIGMAP, ledger_name("chat"), lambda ledger: predicate(spans(ledger)), what=what
    )
    return spans(found)


async def test_the_prompts_of_an_evicted_pod_are_in_the_ledger_up_to_the_next_pods_start(
    scenario: Scenario,
) -> None:
    async with mute_model() as canary, mute_model() as stable:
        quality = {"model": "m", "canary": {"url": canary}, "stable": {"url": stable}}
        settings = a.values(scenario, quality=quality, look={"after": "30m", "every": "1s"})
        await a.install(scenario, settings)
        await hash_addressed(scenario, canary_steps=a.steps(50))
        await scenario.revise("chat", "2")
        (run,) = await a.until_begun(scenario, 1)
        version = (await scenario.hashes("chat"))["current"]
        measurement = await a.until_measurement(scenario, run["metadata"]["uid"], 1)
        assert measurement is not None
        # Before anything is sent, the beginning is in the ledger: a probe without an end.
        ((begun, ended),) = await until_probes(
            scenario, version, lambda spans: len(spans) == 1, "a probe's beginning"
        )
        assert ended == begun
        name = (await a.until_pod(scenario, a.job_of(measurement)))["metadata"]["name"]
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        await scenario.kube.create(POD, eviction, scenario.namespace, name, "eviction")
        first, second = await until_probes(
            scenario, version, lambda spans: len(spans) == 2, "the next pod's probe"
        )
        assert first[0] == begun
        assert begun < first[1] <= second[0] == second[1]
