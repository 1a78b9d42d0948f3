"""A LoRA adapter is released by a Rollout whose pod only probes; the targets carry the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.deployments import lora, lora_release
from support.traffic import Traffic

if TYPE_CHECKING:
    from support.scenario import Scenario

V1 = "travel-helper-v1"
V2 = "travel-helper-v2"


async def test_lora_canary_is_promoted_aborted_and_undone_without_a_failed_request(
    scenario: Scenario,
) -> None:
    await lora(scenario, V1, V2)
    # The only target has everything, whatever its weight: nothing is written.
    await scenario.until_targets("loramodel", {V1: None})
    async with Traffic(await scenario.address(), model="travelhelper", rate=20) as traffic:
        await traffic.until_answers(20)
        # A canary, taken back.
        await scenario.revise("travel-helper", lora_release(V2))
        await scenario.until_paused("travel-helper", 10, timeout_s=180)
        await scenario.until_targets("loramodel", {V1: 90, V2: 10})
        await traffic.until_answered_by(V2)
        window = await traffic.until_answers(300)
        assert window.fits(V2, 0.1), window.counts()
        await scenario.argo("abort", "travel-helper")
        await scenario.until_targets("loramodel", {V1: 100})
        # The same again, to the end.
        await scenario.until_aborted("travel-helper")
        await scenario.argo("retry", "rollout", "travel-helper")
        await scenario.until_paused("travel-helper", 10, timeout_s=180)
        await scenario.argo("promote", "travel-helper")
        await scenario.until_paused("travel-helper", 50)
        await scenario.until_targets("loramodel", {V1: 50, V2: 50})
        await traffic.until_answered_by(V2)
        window = await traffic.until_answers(300)
        assert window.fits(V2, 0.5), window.counts()
        await scenario.argo("promote", "travel-helper")
        await scenario.until_healthy("travel-helper")
        await scenario.until_targets("loramodel", {V2: 100})
        # And back to the first adapter.
        await scenario.argo("undo", "travel-helper")
        await scenario.until_paused("travel-helper", 10, timeout_s=180)
        await scenario.until_targets("loramodel", {V2: 90, V1: 10})
        await scenario.argo("promote", "travel-helper", "--full")
        await scenario.until_healthy("travel-helper")
        await scenario.until_targets("loramodel", {V1: 100})
    assert traffic.failures == []


async def test_adapter_that_no_pod_has_gets_no_weight(scenario: Scenario) -> None:
    await lora(scenario, V1)
    await scenario.revise("travel-helper", lora_release(V2))
    await scenario.until_event("Unhealthy", "503")
    await scenario.until_targets("loramodel", {V1: None})
