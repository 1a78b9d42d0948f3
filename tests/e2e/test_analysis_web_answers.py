"""Answers compared by the Web provider, whose server and Prometheus are away for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support import analysed as a
from support import manifests as m
from support.analysis_server import PLAIN, fronted, serving, until_error
from support.deployments import served
from support.traffic import Traffic

if TYPE_CHECKING:
    from pathlib import Path

    from support.scenario import Scenario

RATE = 20


async def test_answers_decide_by_web_whatever_is_away_for_a_while(
    scenario: Scenario, tmp_path: Path, unused_tcp_port: int
) -> None:
    quality = {"model": "mymodel", "podPort": m.MODEL_PORT, "rate": 20}
    gates = [*PLAIN["gates"], {"metric": "quality", "statistic": "score"}]
    settings = a.values(scenario, policy=PLAIN | {"gates": gates}, retryFor="10m")
    service = f"http://127.0.0.1:{unused_tcp_port}"
    await a.install(scenario, settings, service=service)
    await served(scenario, "one", replicas=3, canary_steps=a.steps(25, web=True))
    address = await scenario.address()
    async with (
        fronted(scenario) as front,
        Traffic(address, model="mymodel", rate=RATE, max_tokens=a.MAX_TOKENS) as traffic,
    ):
        await scenario.revise("chat", a.release("two"))
        # Nobody listens: the first measurement is an Error, which Argo takes again.
        await until_error(scenario)
        front.become("broken")
        sections = {"prometheus": {"url": front.url, "timeout": "10s"}, "quality": quality}
        async with serving(scenario, tmp_path, unused_tcp_port, **sections):
            # The look waits for Prometheus by Errors of the server's own, and is taken once it is
            # back.
            await until_error(scenario, "503")
            front.become("through")
            (good,) = await a.until_ended(scenario, 1, timeout_s=240)
            assert a.phases([good]) == ["Successful"], await a.said(scenario)
            (line,) = await a.said(scenario)
            assert "quality/score proved +0.00 points" in line
            await scenario.until_healthy("chat", timeout_s=180)
            await scenario.revise("chat", a.release("three", "--fault", "wrong_share=0.5"))
            _, bad = await a.until_ended(scenario, 2, timeout_s=240)
            assert a.phases([bad]) == ["Failed"], await a.said(scenario)
            await scenario.until_aborted("chat")
            assert "why: quality/score is worse by" in (await a.said(scenario))[-1]
    assert traffic.failures == []
