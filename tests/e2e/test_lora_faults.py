"""Adapters that come and go under a LoRA canary: the prober's word moves the weights.

No traffic is needed: the model servers are real, what they list is what the prober sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp

from inference_common.kube import DEPLOYMENT, POD, PatchKind
from support import manifests as m
from support.deployments import lora, lora_release
from support.history import History
from support.scenario import is_ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.scenario import Object, Scenario

V1 = "travel-helper-v1"
V2 = "travel-helper-v2"


async def at_ten(scenario: Scenario) -> None:
    await lora(scenario, V1, V2)
    await scenario.revise("travel-helper", lora_release(V2))
    await scenario.until_paused("travel-helper", 10, timeout_s=180)
    await scenario.until_targets("loramodel", {V1: 90, V2: 10})


async def unload(scenario: Scenario, adapter: str) -> None:
    """Take the adapter out of every model server of the pool."""
    for pod in (await scenario.kube.list(POD, scenario.namespace, "release=qwen"))["items"]:
        url = f"http://{pod['status']['podIP']}:{m.MODEL_PORT}/v1/unload_lora_adapter"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json={"lora_name": adapter}) as answer,
        ):
            assert answer.status == 200


async def test_adapter_that_vanishes_at_ten_takes_its_weight_along(scenario: Scenario) -> None:
    await at_ten(scenario)
    await unload(scenario, V2)
    await scenario.until_targets("loramodel", {V1: 100})


async def test_abort_does_not_wait_for_an_unready_stable_prober(scenario: Scenario) -> None:
    """The controller makes no call while stable lacks its pod; the plugin moves by itself."""
    await at_ten(scenario)
    stable = (await scenario.hashes("travel-helper"))["stable"]
    # The prober of stable turns unready only when no pod at all serves its adapter.
    await unload(scenario, V1)
    [pod] = await scenario.pods_of(stable)
    await until_ready(scenario, pod["metadata"]["name"], lambda found: not is_ready(found))
    await scenario.argo("abort", "travel-helper")
    await scenario.until_targets("loramodel", {V1: 100})


async def test_pool_that_grows_from_two_to_four_moves_no_weight(scenario: Scenario) -> None:
    await at_ten(scenario)
    async with History(scenario) as history:
        await scenario.kube.patch(
            DEPLOYMENT,
            "qwen",
            {"spec": {"replicas": 4}},
            scenario.namespace,
            kind=PatchKind.MERGE,
        )
        await scenario.until(
            DEPLOYMENT,
            "qwen",
            lambda obj: obj is not None and obj["status"].get("availableReplicas") == 4,
            what="four available pods",
            timeout_s=180,
        )
        await scenario.reconcile("travel-helper")
    assert history.targets("loramodel") == [{V1: 90, V2: 10}]


async def until_ready(scenario: Scenario, pod: str, predicate: Callable[[Object], bool]) -> None:
    await scenario.until(
        POD, pod, lambda obj: obj is not None and predicate(obj), what="its readiness"
    )
