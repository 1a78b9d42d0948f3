"""The analysis by Argo's Web provider: Successful, Failed and Inconclusive natively."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from typing import TYPE_CHECKING

import yaml

from support import analysed as a
from support.deployments import served
from support.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.scenario import Scenario

RATE = 20


@contextlib.asynccontextmanager
async def serving(scenario: Scenario, folder: Path, address: str) -> AsyncIterator[str]:
    """``analysis serve`` beside the cluster; yields its URL."""
    config = folder / "analysis.yaml"
    config.write_text(yaml.safe_dump({"prometheus": a.values(scenario)["prometheus"]}))
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(a.COMMAND, "analysis", "serve", "--config", config, "--address", address),
            *("--kubeconfig", scenario.cluster.kubeconfig),
            stderr=log,
        )
        try:
            yield f"http://{address}"
        finally:
            process.terminate()
            assert await process.wait() == 0


async def test_the_web_provider_gives_all_three_outcomes(
    scenario: Scenario, tmp_path: Path, unused_tcp_port: int
) -> None:
    short = {"look": {"after": "24s"}}
    async with serving(scenario, tmp_path, f"127.0.0.1:{unused_tcp_port}") as url:
        await a.install(scenario, a.values(scenario, **short), service=url)
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
            first, second = await a.until_ended(scenario, 2, timeout_s=180)
            assert a.phases([first, second]) == ["Successful", "Inconclusive"], await a.said(
                scenario
            )
            # Argo keeps what it was told: measurements before the look wait for it, and one more
            # after it is told the same again.
            values = [
                json.loads(measurement["value"])
                for measurement in first["status"]["metricResults"][0]["measurements"]
            ]
            actions = [key for key, _ in itertools.groupby(found["action"] for found in values)]
            assert actions == ["wait", "proceed"]
            assert len(values[-1]["lines"]) == 5
            canary = await a.begin(scenario, a.release("three"))
            await a.spoil(scenario, canary, slow_factor=3)
            *_, bad = await a.until_ended(scenario, 3, timeout_s=180)
            assert a.phases([bad]) == ["Failed"], await a.said(scenario)
            await scenario.until_aborted("chat")
