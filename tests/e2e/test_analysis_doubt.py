"""What becomes of an inconclusive verdict: a person decides, or time does, by Job and by Web."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support import analysed as a
from support.analysis_server import fronted, serving, until_doubted, until_waiting
from support.deployments import hash_addressed

if TYPE_CHECKING:
    from pathlib import Path

    from support.scenario import Scenario

# No vLLM runs in these pods, so that Prometheus has nothing on them.
QUICK = {"look": {"after": "2s", "every": "1s"}, "retryFor": "1s"}


@pytest.mark.parametrize("provider", ["job", "web"])
async def test_doubt_waits_for_a_person_and_then_for_nobody(
    scenario: Scenario, tmp_path: Path, unused_tcp_port: int, provider: str
) -> None:
    by_web = provider == "web"
    async with serving(scenario, tmp_path, unused_tcp_port) as url:
        waits = {
            "proceed": {"maxWait": "3s", "onInconclusive": "proceed"},
            "attended": {"maxWait": "10m", "onInconclusive": "abort"},
            "abort": {"maxWait": "3s", "onInconclusive": "abort"},
        }
        for name, over in waits.items():
            settings = a.values(scenario, **QUICK, **over)
            await a.install(scenario, settings, name=name, service=url if by_web else "")
        used = [
            {"analysis": a.analysis_of(n, web=by_web)} for n in ("proceed", "attended", "abort")
        ]
        await hash_addressed(scenario, canary_steps=[{"setWeight": 50}, *used, {"pause": {}}])
        await scenario.revise("chat", "2")
        runs = await a.until_begun(scenario, 2)
        assert a.phases(runs)[0] == "Successful", await a.said(scenario)
        second = runs[1]["metadata"]["name"]
        await until_waiting(scenario, second)
        code, text, problems = await a.analysis(
            *("acknowledge", "--namespace", scenario.namespace, "--rollout", "chat"),
            *("--by", "ann", "--reason", "no traffic yet", "--decision", "proceed"),
            *("--kubeconfig", scenario.cluster.kubeconfig),
        )
        assert (code, problems) == (0, ""), text
        runs = await a.until_ended(scenario, 3, timeout_s=180)
        assert a.phases(runs) == ["Successful", "Successful", "Failed"], await a.said(scenario)
        await scenario.until_aborted("chat")
    said = [text.splitlines() for text in await a.said(scenario)]
    doubts, ends = said[::2], said[1::2]
    assert [lines[0].split(":")[0] for lines in doubts] == ["INCONCLUSIVE, pause"] * 3
    assert [lines[0].split(":")[0] for lines in ends] == [
        *("INCONCLUSIVE, proceed", "INCONCLUSIVE, proceed", "INCONCLUSIVE, abort")
    ]
    for lines, why in zip(
        ends,
        (
            "onInconclusive is proceed",
            "ann decided to proceed: no traffic yet",
            "onInconclusive is abort",
        ),
        strict=True,
    ):
        assert "has no series at all" in lines[1]
        # On a busy machine Argo repeats an Error at once, and Web has no time left to wait.
        assert why in lines[1]


async def test_by_web_a_prometheus_that_fails_in_any_way_pauses_with_the_reason(
    scenario: Scenario, tmp_path: Path, unused_tcp_port: int
) -> None:
    reasons = {
        "broken": "not reached",
        "slow": "no answer in 1 s",
        "partial": "store gateway 2 of 3",
        "through": "has no series at all",
    }
    async with fronted(scenario) as front:
        access = {"url": front.url, "timeout": "1s"}
        async with serving(scenario, tmp_path, unused_tcp_port, prometheus=access) as url:
            await a.install(scenario, a.values(scenario, **QUICK), service=url)
            steps = [{"setWeight": 50}, *[{"analysis": a.analysis_of(web=True)}] * len(reasons)]
            front.become("broken")
            await hash_addressed(scenario, canary_steps=[*steps, {"pause": {}}])
            await scenario.revise("chat", "2")
            for number, (mode, reason) in enumerate(reasons.items(), start=1):
                front.become(mode)
                if number > 1:
                    await scenario.argo("promote", "chat")
                runs = await a.until_ended(scenario, number)
                assert a.phases(runs) == ["Inconclusive"] * number, await a.said(scenario)
                said = (await a.said(scenario))[-1]
                assert said.startswith("INCONCLUSIVE, pause")
                assert reason in said
                await until_doubted(scenario)
