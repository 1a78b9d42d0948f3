"""Services as destinations: the names of the Rollout's canaryService and stableService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support import manifests as m
from support.traffic import Traffic

if TYPE_CHECKING:
    from support.scenario import Scenario


async def test_services_named_by_the_rollout_are_weighted_promoted_and_aborted(
    scenario: Scenario,
) -> None:
    labels = {"app": "chat"}
    await scenario.apply(
        m.gateway(),
        m.service("chat-stable", labels),
        m.service("chat-canary", labels),
        m.route("chat", m.service_ref("chat-stable", 100), m.service_ref("chat-canary", 0)),
        m.rollout(
            "chat",
            m.pod_template(m.noop(), labels=labels),
            {"httpRoute": "chat"},
            stableService="chat-stable",
            canaryService="chat-canary",
        ),
    )
    await scenario.until_healthy("chat")
    await scenario.until_weights("chat", {"chat-stable": 100, "chat-canary": 0})
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    await scenario.until_weights("chat", {"chat-stable": 90, "chat-canary": 10})
    await scenario.argo("abort", "chat")
    await scenario.until_weights("chat", {"chat-stable": 100, "chat-canary": 0})
    await scenario.until_aborted("chat")
    await scenario.argo("retry", "rollout", "chat")
    await scenario.until_paused("chat", 10)
    await scenario.argo("promote", "chat")
    await scenario.until_paused("chat", 50)
    await scenario.until_weights("chat", {"chat-stable": 50, "chat-canary": 50})
    await scenario.argo("promote", "chat")
    await scenario.until_healthy("chat")
    # Argo has aimed the stable Service at the new version by now: roles stay, contents move.
    await scenario.until_weights("chat", {"chat-stable": 100, "chat-canary": 0})


async def test_a_canary_between_services_fails_no_request(scenario: Scenario) -> None:
    labels = {"app": "chat"}
    await scenario.apply(
        m.gateway(),
        m.service("chat-stable", labels),
        m.service("chat-canary", labels),
        m.route("chat", m.service_ref("chat-stable", 100), m.service_ref("chat-canary", 0)),
        m.rollout(
            "chat",
            m.pod_template(m.simulated_vllm("v1"), labels=labels),
            {"httpRoute": "chat"},
            stableService="chat-stable",
            canaryService="chat-canary",
        ),
    )
    await scenario.until_healthy("chat")
    await scenario.until_accepted("chat")
    async with Traffic(await scenario.address(), model="mymodel", rate=20) as traffic:
        await traffic.until_answers(10)
        template = m.pod_template(m.simulated_vllm("v2"), labels=labels)
        await scenario.revise("chat", template)
        await scenario.until_paused("chat", 10)
        await scenario.argo("promote", "chat")
        await scenario.until_paused("chat", 50)
        await scenario.until_accepted("chat")
        window = await traffic.until_answers(200)
        assert window.fits("v2", 0.5), window.counts()
        old = (await scenario.hashes("chat"))["stable"]
        await scenario.argo("promote", "chat")
        await scenario.until_healthy("chat")
        await scenario.until_no_pods(old)
        window = await traffic.until_answers(20)
        assert window.shares() == {"v2": 1.0}
    assert traffic.failures == []
