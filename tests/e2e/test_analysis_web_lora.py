"""The analysis of LoRA adapters by Argo's Web provider: all three outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support import analysed as a
from support.analysis_server import DOUBTFUL, PLAIN, serving, until_doubted
from support.deployments import lora, lora_release
from support.traffic import Traffic

if TYPE_CHECKING:
    from pathlib import Path

    from support.scenario import Scenario

RATE = 20
V1, V2, V3 = (f"travel-helper-v{number}" for number in (1, 2, 3))


async def test_adapters_by_web_are_promoted_doubted_and_aborted(
    scenario: Scenario, tmp_path: Path, unused_tcp_port: int
) -> None:
    controls = [f"{name}-control" for name in (V1, V2)]
    adapters = {"arms": {"by": "adapters"}}
    async with serving(scenario, tmp_path, unused_tcp_port) as url:
        look = {"look": {"after": "30s"}}
        await a.install(scenario, a.values(scenario, **adapters, **look, policy=PLAIN), service=url)
        short = {"look": {"after": "6s"}}
        settings = a.values(scenario, **adapters, **short, policy=DOUBTFUL)
        await a.install(scenario, settings, name="prove", service=url)
        steps = [*a.steps(25, web=True), {"analysis": a.analysis_of("prove", web=True)}]
        await lora(
            scenario,
            *(V1, V2, V3, *controls),
            replicas=4,
            extra=("--max-loras", "8", "--fault", f"slow_factor=25,models={V3}"),
            canary_steps=steps,
        )
        address = await scenario.address()
        async with Traffic(
            address, model="travelhelper", rate=RATE, max_tokens=a.MAX_TOKENS
        ) as traffic:
            await scenario.revise("travel-helper", lora_release(V2))
            runs = await a.until_ended(scenario, 2, timeout_s=240)
            assert a.phases(runs) == ["Successful", "Inconclusive"], await a.said(scenario)
            await until_doubted(scenario, "travel-helper")
            await scenario.argo("promote", "travel-helper")
            await scenario.until_healthy("travel-helper", timeout_s=180)
            await scenario.until_targets("loramodel", {V2: 100})
            await scenario.revise("travel-helper", lora_release(V3))
            *_, bad = await a.until_ended(scenario, 3, timeout_s=240)
            assert a.phases([bad]) == ["Failed"], await a.said(scenario)
            await scenario.until_aborted("travel-helper")
            await scenario.until_targets("loramodel", {V2: 100})
        assert traffic.failures == []
