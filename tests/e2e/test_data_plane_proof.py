"""A step is verified once the pickers' own counters show the split, by the real Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inference_common.kube import HTTPROUTE, POD, ROLLOUT, PatchKind
from support import manifests as m
from support.deployments import POOLS, served
from support.scenario import canary_weight, weights
from support.traffic import Traffic

if TYPE_CHECKING:
    from support.scenario import Scenario

CONFIG = "/spec/strategy/canary/trafficRouting/plugins/inference-rollouts~1router/dataPlaneProof"


async def scraped(scenario: Scenario) -> None:
    """Have Prometheus read the pickers, as the annotations of manifests/examples do."""
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": "9090"}
    for name in POOLS:
        found = await scenario.kube.list(POD, scenario.namespace, f"app=picker-{name}")
        for pod in found["items"]:
            await scenario.kube.patch(
                POD,
                pod["metadata"]["name"],
                {"metadata": {"annotations": annotations}},
                scenario.namespace,
                kind=PatchKind.MERGE,
            )


async def prove(scenario: Scenario, **settings: Any) -> None:
    """Ask for a proof of each step of the served Rollout from now on."""
    query = (
        "sum by (version) (increase(inference_picker_picks_total{namespace="
        f'"{scenario.namespace}"}}[$window]))'
    )
    change = {"op": "add", "path": CONFIG, "value": {"query": query, **settings}}
    await scenario.kube.patch(ROLLOUT, "chat", [change], scenario.namespace)


async def test_a_step_waits_until_enough_requests_have_shown_its_split(
    scenario: Scenario,
) -> None:
    await served(scenario, "one", steps=[{"setWeight": 50}, {"pause": {}}])
    await scraped(scenario)
    await prove(scenario, timeoutSeconds=600)
    await scenario.revise("chat", {"spec": {"containers": [m.simulated_vllm("two")]}})
    # The weights are there, and the gateway has them: only the proof is missing.
    await scenario.until_weights("chat", {"chat-a": 50, "chat-b": 50}, timeout_s=180)
    await scenario.until_event("WaitingForProof", "100 are needed")
    rollout = await scenario.get(ROLLOUT, "chat")
    assert rollout["status"].get("currentStepIndex", 0) == 0
    assert not rollout["status"].get("pauseConditions")
    async with Traffic(await scenario.address(), model="mymodel", rate=20) as traffic:
        await scenario.until_paused("chat", 50, timeout_s=180)
        assert len(traffic.failures) == 0
        # 100 by Prometheus' increase(), which goes on as before for up to 1.1 intervals after the
        # last of its two or more samples (promql/functions.go): at most 2.1 times as many.
        assert traffic.sent >= 47


async def test_without_requests_a_step_goes_on_after_the_timeout_and_says_so(
    scenario: Scenario,
) -> None:
    await served(scenario, "one", replicas=1, steps=[{"setWeight": 50}, {"pause": {}}])
    await prove(scenario, timeoutSeconds=5)
    await scenario.revise("chat", {"spec": {"containers": [m.simulated_vllm("two")]}})
    rollout = await scenario.until_paused("chat", 50, timeout_s=180)
    assert canary_weight(rollout) == 50
    assert weights(await scenario.get(HTTPROUTE, "chat")) == {"chat-a": 50, "chat-b": 50}
    event = await scenario.until_event("ProofExpired", "within 5 s")
    assert event["type"] == "Warning"
