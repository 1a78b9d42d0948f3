"""The analysis by Argo's Web provider: Successful, Failed and Inconclusive natively."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

from support import analysed as a
from support.analysis_server import serving
from support.deployments import served
from support.traffic import Traffic

if TYPE_CHECKING:
    from pathlib import Path

    from support.scenario import Scenario

RATE = 20


async def test_the_web_provider_gives_all_three_outcomes(
    scenario: Scenario, tmp_path: Path, unused_tcp_port: int
) -> None:
    short = {"look": {"after": "24s"}}
    async with serving(scenario, tmp_path, unused_tcp_port) as url:
        await a.install(scenario, a.values(scenario, **short, policy=a.CALM), service=url)
        await a.install(
            scenario,
            # To show that errors differ by less than .01 points takes 30,000 requests.
            a.values(
                scenario,
                **short,
                policy={
                    "mode": "prove",
                    "gates": [{"metric": "errors", "statistic": "rate", "margin": 0.0001}],
                },
            ),
            name="prove",
            service=url,
        )
        await served(
            scenario,
            "one",
            replicas=3,
            canary_steps=[
                {"setWeight": 25},
                {"analysis": a.analysis_of(web=True)},
                {"analysis": a.analysis_of("prove", web=True)},
            ],
        )
        address = await scenario.address()
        async with Traffic(address, model="mymodel", rate=RATE, max_tokens=a.MAX_TOKENS):
            await scenario.revise("chat", a.release("two"))
            first, second = await a.until_ended(scenario, 2)
            assert a.phases([first, second]) == ["Successful", "Inconclusive"], await a.said(
                scenario
            )
            # Argo keeps what it was told: measurements before the look wait for it, and one more
            # after it is told the same again.
            values = [
                json.loads(measurement["value"])
                for measurement in a.all_measurements(first)
                if measurement["phase"] != "Error"
            ]
            actions = [key for key, _ in itertools.groupby(found["action"] for found in values)]
            assert actions == ["wait", "proceed"]
            assert len(values[-1]["lines"]) == 5
            canary = await a.begin(scenario, a.release("three"))
            await a.spoil(scenario, canary, slow_factor=3)
            *_, bad = await a.until_ended(scenario, 3)
            assert a.phases([bad]) == ["Failed"], await a.said(scenario)
            await scenario.until_aborted("chat")
