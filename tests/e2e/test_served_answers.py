"""Weights seen where they matter: in streamed answers through the real gateway.

Every request of every test must succeed: a shift may cost none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from support import manifests as m
from support.deployments import served
from support.traffic import Traffic

if TYPE_CHECKING:
    from support.scenario import Scenario

QWEN = "Qwen-2.5-7B-Instruct"
DEEPSEEK = "DeepSeek-R1-Distill-Qwen-7B"
RATE = 20
ANSWERS = 300


def revised(version: str) -> dict[str, object]:
    return {"spec": {"containers": [m.simulated_vllm(version)]}}


async def test_base_model_canary_serves_its_share_at_each_step_and_fails_no_request(
    scenario: Scenario,
) -> None:
    await served(scenario, QWEN)
    async with Traffic(await scenario.address(), model="mymodel", rate=RATE) as traffic:
        await traffic.until_answers(20)
        assert traffic.window().shares() == {QWEN: 1.0}
        await scenario.revise("chat", revised(DEEPSEEK))
        for weight in (10, 50):
            await scenario.until_paused("chat", weight, timeout_s=180)
            await scenario.until_accepted("chat")
            window = await traffic.until_answers(ANSWERS)
            assert window.fits(DEEPSEEK, weight / 100), window.counts()
            await scenario.argo("promote", "chat")
        await scenario.until_healthy("chat", timeout_s=180)
        await scenario.until_accepted("chat")
        window = await traffic.until_answers(20)
        assert window.shares() == {DEEPSEEK: 1.0}
    assert traffic.failures == []


async def test_abort_under_traffic_brings_every_answer_back_to_stable(scenario: Scenario) -> None:
    await served(scenario, QWEN)
    async with Traffic(await scenario.address(), model="mymodel", rate=RATE) as traffic:
        await scenario.revise("chat", revised(DEEPSEEK))
        await scenario.until_paused("chat", 10, timeout_s=180)
        await scenario.argo("promote", "chat")
        await scenario.until_paused("chat", 50)
        await traffic.until_answers(50)
        await scenario.argo("abort", "chat")
        await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})
        await scenario.until_accepted("chat")
        window = await traffic.until_answers(30)
        assert window.shares() == {QWEN: 1.0}
        # The aborted pods go away under the same traffic.
        canary = (await scenario.hashes("chat"))["current"]
        await scenario.until_no_pods(canary)
        await traffic.until_answers(30)
    assert traffic.failures == []


async def test_step_that_falls_to_zero_fails_no_request(scenario: Scenario) -> None:
    """Argo scales the canary down for the lower weight before it asks for that weight."""
    await served(scenario, QWEN, replicas=1, canary_steps=[*m.steps(50), *m.steps(0)])
    async with Traffic(await scenario.address(), model="mymodel", rate=RATE) as traffic:
        await scenario.revise("chat", revised(DEEPSEEK))
        await scenario.until_paused("chat", 50, timeout_s=180)
        await scenario.until_accepted("chat")
        canary = (await scenario.hashes("chat"))["current"]
        await scenario.argo("promote", "chat")
        await scenario.until_paused("chat", 0)
        await scenario.until_no_pods(canary)
        window = await traffic.until_answers(20)
        assert window.shares() == {QWEN: 1.0}
    assert traffic.failures == []
