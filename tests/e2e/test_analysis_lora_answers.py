"""The answers of LoRA adapters: asked at the gateway by the names that the revisions stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support import analysed as a
from support import manifests as m
from support.analysis_server import DOUBTFUL, PLAIN, until_doubted
from support.deployments import lora, lora_release
from support.traffic import Traffic

if TYPE_CHECKING:
    from support.scenario import Scenario

RATE = 20
V1, V2, V3 = (f"travel-helper-v{number}" for number in (1, 2, 3))


async def test_an_adapter_that_answers_worse_is_aborted_an_equal_one_passed_or_doubted(
    scenario: Scenario,
) -> None:
    await scenario.apply(m.gateway())
    address = await scenario.address()
    adapters = {"arms": {"by": "adapters"}}
    quality = {"canary": {"url": address}, "stable": {"url": address}, "rate": 20}
    gates = [*PLAIN["gates"], {"metric": "quality", "statistic": "score"}]
    settings = a.values(
        scenario,
        **adapters,
        quality=quality,
        look={"after": "45s"},
        policy=PLAIN | {"gates": gates},
    )
    await a.install(scenario, settings)
    short = {"look": {"after": "6s"}}
    settings = a.values(scenario, **adapters, **short, policy=DOUBTFUL)
    await a.install(scenario, settings, name="prove")
    # As fast as the others, but every second prompt is answered wrongly.
    fault = ("--fault", f"wrong_share=0.5,models={V3}")
    controls = [f"{name}-control" for name in (V1, V2)]
    await lora(
        scenario,
        *(V1, V2, V3, *controls),
        replicas=4,
        extra=("--max-loras", "8", *fault),
        canary_steps=[*a.steps(25), {"analysis": a.analysis_of("prove")}],
    )
    async with Traffic(
        address, model="travelhelper", rate=RATE, max_tokens=a.MAX_TOKENS
    ) as traffic:
        await scenario.revise("travel-helper", lora_release(V2))
        runs = await a.until_ended(scenario, 2, timeout_s=240)
        assert a.phases(runs) == ["Successful", "Inconclusive"], await a.said(scenario)
        # A PASS is for the last look of the plan; this one has seen equal answers.
        (first,) = [text for text in await a.said(scenario) if "72 prompts" in text]
        assert "quality/score step +0.00 points" in first
        await until_doubted(scenario, "travel-helper")
        await scenario.argo("promote", "travel-helper")
        await scenario.until_healthy("travel-helper", timeout_s=180)
        await scenario.revise("travel-helper", lora_release(V3))
        *_, bad = await a.until_ended(scenario, 3, timeout_s=240)
        assert a.phases([bad]) == ["Failed"], await a.said(scenario)
        await scenario.until_aborted("travel-helper")
        assert "why: quality/score is worse by" in (await a.said(scenario))[-1]
    assert traffic.failures == []
