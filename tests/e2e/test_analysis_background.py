"""The analysis beside a Rollout's steps: it looks by its own plan and ends only on harm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference_common.kube import ROLLOUT
from support import analysed as a
from support.deployments import served
from support.scenario import canary_weight, is_observed
from support.traffic import Traffic

if TYPE_CHECKING:
    from typing import Any

    from support.scenario import Scenario

RATE = 20


async def until_weight(scenario: Scenario, weight: int) -> dict[str, Any]:
    return await scenario.until(
        ROLLOUT,
        "chat",
        lambda obj: obj is not None and is_observed(obj) and canary_weight(obj) == weight,
        what=f"weight {weight}",
        timeout_s=180,
    )


async def test_a_regression_that_begins_at_60_per_cent_is_caught_by_the_background_run_alone(
    scenario: Scenario,
) -> None:
    background = {"looks": 3, "over": "60s"}
    settings = a.values(scenario, background=background, look={"recent": "15s"}, policy=a.CALM)
    await a.install(scenario, settings, name="canary", background=True)
    steps = [
        *({"setWeight": 25}, {"pause": {"duration": "15s"}}),
        *({"setWeight": 60}, {"pause": {}}),
    ]
    await served(
        scenario,
        "one",
        replicas=3,
        canary_steps=steps,
        analysis=a.analysis_of("canary-background"),
    )
    address = await scenario.address()
    async with Traffic(address, model="mymodel", rate=RATE, max_tokens=a.MAX_TOKENS) as traffic:
        await scenario.revise("chat", a.release("two"))
        found = await until_weight(scenario, 60)
        canary = found["status"]["currentPodHash"]
        await scenario.until_paused("chat", 60)
        await a.spoil(scenario, canary, slow_factor=3)
        (run,) = await a.until_ended(scenario, 1)
        assert a.phases([run]) == ["Failed"], await a.said(scenario)
        await scenario.until_aborted("chat")
        assert any("FAIL, abort" in text for text in await a.said(scenario))
        # The cause is gone: the run beside the next try finds nothing, and ends with the Rollout.
        await scenario.until_no_pods(canary)
        await scenario.argo("retry", "rollout", "chat")
        await scenario.until_paused("chat", 60, timeout_s=180)
        await scenario.argo("promote", "chat")
        await scenario.until_healthy("chat", timeout_s=180)
        *_, last = await a.until_ended(scenario, 2)
    assert a.phases([last])[0] != "Failed", await a.said(scenario)
    assert traffic.failures == []
