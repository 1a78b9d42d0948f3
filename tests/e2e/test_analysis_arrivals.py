"""Pods that come while an analysis runs, too few of them, and the very first ones."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from inference_common.kube import ROLLOUT, PatchKind
from support import analysed as a
from support.analysis_server import PLAIN, fronted
from support.deployments import served
from support.traffic import Traffic

if TYPE_CHECKING:
    from support.scenario import Scenario

RATE = 20
_POLL_S: Final = 0.5


async def until_measured(scenario: Scenario, version: str, pods: int) -> None:
    """Return when Prometheus has that many pods of a version with ten windows of requests each."""
    query = (
        'count(rate(vllm:e2e_request_latency_seconds_count{namespace="'
        f'{scenario.namespace}",rollouts_pod_template_hash="{version}"}}[30s] offset 10s) > 0)'
    )
    url = f"{scenario.cluster.prometheus}/api/v1/query"
    async with asyncio.timeout(240.0), aiohttp.ClientSession() as session:
        while True:
            async with session.get(url, params={"query": query}) as response:
                result: list[dict[str, Any]] = (await response.json())["data"]["result"]
            if result and int(result[0]["value"][1]) == pods:
                return
            # What Prometheus has can't be watched.
            await asyncio.sleep(_POLL_S)


async def test_two_stable_pods_are_weak_evidence_until_others_join(scenario: Scenario) -> None:
    # The canary of two has as many pods as stable at first; later two serve beside four.
    policy = PLAIN | {"loadLow": 0.1, "loadHigh": 10.0}
    async with fronted(scenario) as front:
        access = {"prometheus": {"url": front.url, "timeout": "10s"}}
        settings = a.values(scenario, **access, policy=policy, retryFor="10m")
        await a.install(scenario, settings)
        steps = [
            *({"setCanaryScale": {"replicas": 2}}, {"setWeight": 50}),
            *({"analysis": a.analysis_of()}, {"pause": {}}, {"analysis": a.analysis_of()}),
        ]
        await served(scenario, "one", replicas=2, canary_steps=steps)
        # A first deployment has nothing older to be compared with: nothing is asked.
        assert (await scenario.kube.list(a.ANALYSISRUN, scenario.namespace))["items"] == []
        stable = (await scenario.hashes("chat"))["stable"]
        address = await scenario.address()
        async with Traffic(address, model="mymodel", rate=RATE, max_tokens=a.MAX_TOKENS) as traffic:
            await scenario.revise("chat", a.release("two"))
            (first,) = await a.until_ended(scenario, 1, timeout_s=240)
            assert a.phases([first]) == ["Successful"], await a.said(scenario)
            (weak,) = await a.said(scenario)
            assert "evidence: weak" in weak
            assert "1 and 3 are needed" in weak
            # The second look waits for Prometheus until the new pods have served.
            await scenario.until_paused("chat", 50)
            front.become("broken")
            await scenario.argo("promote", "chat")
            scale = {"spec": {"replicas": 4}}
            await scenario.kube.patch(
                ROLLOUT, "chat", scale, scenario.namespace, kind=PatchKind.MERGE
            )
            await until_measured(scenario, stable, 4)
            front.become("through")
            _, second = await a.until_ended(scenario, 2, timeout_s=240)
            assert a.phases([second]) == ["Successful"], await a.said(scenario)
            passed = (await a.said(scenario))[-1]
            assert passed.startswith("PASS, proceed")
            assert "and 4 stable pods" in passed
            await scenario.until_healthy("chat", timeout_s=180)
        assert traffic.failures == []
