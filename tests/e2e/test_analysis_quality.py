"""The analysis compares answers: the prober asks the pods of both versions from the Job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support import analysed as a
from support import manifests as m
from support.deployments import served
from support.repository import ROOT
from support.traffic import Traffic

if TYPE_CHECKING:
    from support.scenario import Scenario

RATE = 20
PROMPTS = ROOT / "analysis" / "inference_analysis" / "prompts" / "example-prompts.jsonl"


async def test_a_version_that_answers_worse_is_aborted_and_an_equal_one_promoted(
    scenario: Scenario,
) -> None:
    prompts = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "prompts"},
        "data": {"prompts.jsonl": PROMPTS.read_text()},
    }
    await scenario.apply(prompts)
    quality = {
        "promptSet": "configmap/prompts",
        "model": "mymodel",
        "podPort": m.MODEL_PORT,
        "rate": 20,
    }
    policy = {"gates": [*a.CALM["gates"], {"metric": "quality", "statistic": "score"}]}
    await a.install(scenario, a.values(scenario, quality=quality, policy=policy))
    await served(scenario, "one", replicas=3, canary_steps=a.steps(25))
    address = await scenario.address()
    async with Traffic(address, model="mymodel", rate=RATE, max_tokens=a.MAX_TOKENS) as traffic:
        await scenario.revise("chat", a.release("two"))
        (good,) = await a.until_ended(scenario, 1)
        assert a.phases([good]) == ["Successful"], await a.said(scenario)
        await scenario.until_healthy("chat", timeout_s=180)
        (line,) = await a.said(scenario)
        assert "quality/score proved +0.00 points" in line
        assert "72 prompts" in line
        # As fast as ever, but every third prompt is answered wrongly.
        await scenario.revise("chat", a.release("three", "--fault", "wrong_share=0.33"))
        _, bad = await a.until_ended(scenario, 2)
        assert a.phases([bad]) == ["Failed"], await a.said(scenario)
        await scenario.until_aborted("chat")
        (why,) = [text for text in await a.said(scenario) if "FAIL, abort" in text]
        assert "why: quality/score is worse by" in why
    assert traffic.failures == []


async def test_answers_that_nobody_gives_make_a_look_inconclusive_never_a_pass(
    scenario: Scenario,
) -> None:
    # Nothing listens on this port of the pods.
    quality = {"model": "mymodel", "podPort": m.MODEL_PORT + 1, "retries": 0}
    settings = a.values(scenario, quality=quality, look={"after": "9s"}, retryFor="3s")
    await a.install(scenario, settings)
    await served(scenario, "one", replicas=3, canary_steps=a.steps(25))
    async with Traffic(
        await scenario.address(), model="mymodel", rate=RATE, max_tokens=a.MAX_TOKENS
    ):
        await scenario.revise("chat", a.release("two"))
        (run,) = await a.until_ended(scenario, 1)
        assert a.phases([run]) == ["Inconclusive"], await a.said(scenario)
        (line,) = await a.said(scenario)
        assert "was not reached in 1 attempt:" in line
