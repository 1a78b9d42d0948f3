"""A canary whose servers answer 500 at once: the picker keeps users from it, the analysis fails it.

What the picker sends elsewhere does not fail any more, so the few requests that did are all there
is to judge by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from support import analysed as a
from support import manifests as m
from support.traffic import Traffic

if TYPE_CHECKING:
    from support.scenario import Scenario

RATE = 20
WEIGHT = 40
PODS = 3
APP = {"app": "chat"}


async def test_a_canary_that_answers_500_is_ejected_and_failed(scenario: Scenario) -> None:
    gates = [
        {"metric": "ttft", "statistic": "mean"},
        {"metric": "errors", "statistic": "rate", "margin": 0.05},
    ]
    settings = a.values(
        scenario, arms={"by": "versions"}, look={"after": "45s"}, policy={"gates": gates}
    )
    await a.install(scenario, settings)
    await scenario.apply(
        m.gateway(),
        *m.picker_rights(),
        m.pool("chat", APP),
        *m.picker("picker", "chat"),
        m.route("chat", m.pool_ref("chat")),
    )
    await scenario.until_available("picker")
    template = m.pod_template(m.simulated_vllm("one"), labels=APP)
    steps = [{"setCanaryScale": {"replicas": PODS}}, *a.steps(WEIGHT)]
    await scenario.apply(
        m.rollout("chat", template, {"sharedPool": "chat"}, replicas=PODS, canary_steps=steps)
    )
    await scenario.until_healthy("chat", timeout_s=180)
    await scenario.until_accepted("chat")
    address = await scenario.address()
    async with Traffic(address, model="mymodel", rate=RATE, max_tokens=a.MAX_TOKENS) as traffic:
        await scenario.revise("chat", a.release("two", "--fault", "error_rate=1"))
        (run,) = await a.until_ended(scenario, 1, timeout_s=180)
        told = await a.said(scenario)
        assert a.phases([run]) == ["Failed"], "\n".join(told)
        await scenario.until_aborted("chat")
        window = traffic.window()
    (verdict,) = [text for text in told if "FAIL, abort" in text]
    assert "all of its servers are ejected" in verdict or "errors/rate" in verdict
    # Three failures eject a pod, and one at each new try: few of all answers, where the canary's
    # share is forty per cent.
    assert 0 < len(traffic.failures) <= 0.2 * window.total
