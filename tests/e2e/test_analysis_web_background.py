"""The Web provider beside a Rollout's steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support import analysed as a
from support.analysis_server import PLAIN, serving
from support.deployments import served
from support.traffic import Traffic

if TYPE_CHECKING:
    from pathlib import Path

    from support.scenario import Scenario

RATE = 20


async def test_a_regression_that_begins_at_60_per_cent_is_caught_by_web_in_the_background(
    scenario: Scenario, tmp_path: Path, unused_tcp_port: int
) -> None:
    async with serving(scenario, tmp_path, unused_tcp_port) as url:
        # No look of a plan: what is found is gross, and found by the checks between looks.
        settings = a.values(scenario, background={"looks": 0}, look={"recent": "15s"}, policy=PLAIN)
        await a.install(scenario, settings, name="canary", background=True, service=url)
        await served(
            scenario,
            "one",
            replicas=3,
            canary_steps=[{"setWeight": 60}, {"pause": {}}],
            analysis=a.analysis_of("canary-background", web=True),
        )
        address = await scenario.address()
        async with Traffic(address, model="mymodel", rate=RATE, max_tokens=a.MAX_TOKENS) as traffic:
            await scenario.revise("chat", a.release("two"))
            paused = await scenario.until_paused("chat", 60, timeout_s=180)
            await a.until_begun(scenario, 1)
            await a.spoil(scenario, paused["status"]["currentPodHash"], slow_factor=8)
            (run,) = await a.until_ended(scenario, 1)
            assert a.phases([run]) == ["Failed"], await a.said(scenario)
            await scenario.until_aborted("chat")
            (why,) = await a.said(scenario)
            assert why.startswith("FAIL, abort")
        assert traffic.failures == []
