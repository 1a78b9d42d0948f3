"""The analysis decides a Rollout's steps by Jobs: real controller, real Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support import analysed as a
from support.deployments import served
from support.traffic import Traffic

if TYPE_CHECKING:
    from support.scenario import Scenario

RATE = 20


async def test_a_good_version_reaches_100_per_cent_with_no_hand_on_it_and_a_slow_one_none(
    scenario: Scenario,
) -> None:
    # One canary and three stable pods; at 25 per cent each pod gets the same.
    await a.install(scenario, a.values(scenario))
    await served(scenario, "one", replicas=3, canary_steps=a.steps(25))
    address = await scenario.address()
    async with Traffic(address, model="mymodel", rate=RATE, max_tokens=a.MAX_TOKENS) as traffic:
        await scenario.revise("chat", a.release("two"))
        (good,) = await a.until_ended(scenario, 1, timeout_s=180)
        assert a.phases([good]) == ["Successful"], await a.said(scenario)
        # The same AnalysisRun never costs a second look: the second Job replays the first's.
        assert a.measurements(good) == ["Successful", "Successful"]
        await scenario.until_healthy("chat", timeout_s=180)
        (line,) = await a.said(scenario)
        assert "proceed: " in line.splitlines()[0]
        assert len(line.splitlines()) == 5
        await scenario.revise("chat", a.release("three", "--fault", "slow_factor=3"))
        _, bad = await a.until_ended(scenario, 2, timeout_s=180)
        assert a.phases([bad]) == ["Failed"], await a.said(scenario)
        assert a.measurements(bad) == ["Failed", "Failed"]
        await scenario.until_aborted("chat")
    assert traffic.failures == []
    assert any("FAIL, abort" in line for line in await a.said(scenario))
