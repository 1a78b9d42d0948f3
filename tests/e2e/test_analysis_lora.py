"""The analysis of LoRA adapters on shared pods: the picker's series tell them apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support import analysed as a
from support.deployments import lora, lora_release
from support.traffic import Traffic

if TYPE_CHECKING:
    from support.scenario import Scenario

RATE = 20
V1, V2, V3 = (f"travel-helper-v{number}" for number in (1, 2, 3))


async def test_a_good_adapter_is_promoted_and_a_slow_one_aborted(scenario: Scenario) -> None:
    # The stable adapter's second alias gets the canary's share: the reference of the comparison.
    controls = [f"{name}-control" for name in (V1, V2)]
    adapters = {"by": "adapters"}
    settings = a.values(scenario, arms=adapters, look={"after": "30s"}, policy=a.CALM)
    await a.install(scenario, settings)
    await lora(
        scenario,
        *(V1, V2, V3, *controls),
        replicas=4,
        extra=("--max-loras", "8", "--fault", f"slow=6,models={V3}"),
        canary_steps=a.steps(25),
    )
    address = await scenario.address()
    async with Traffic(
        address, model="travelhelper", rate=RATE, max_tokens=a.MAX_TOKENS
    ) as traffic:
        await scenario.revise("travel-helper", lora_release(V2))
        (good,) = await a.until_ended(scenario, 1)
        assert a.phases([good]) == ["Successful"], await a.said(scenario)
        await scenario.until_healthy("travel-helper", timeout_s=180)
        await scenario.until_targets("loramodel", {V2: 100})
        await scenario.revise("travel-helper", lora_release(V3))
        _, bad = await a.until_ended(scenario, 2)
        assert a.phases([bad]) == ["Failed"], await a.said(scenario)
        await scenario.until_aborted("travel-helper")
        await scenario.until_targets("loramodel", {V2: 100})
    assert traffic.failures == []
