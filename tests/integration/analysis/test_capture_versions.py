"""Versions inside one pool, from the real picker through the real Prometheus to a verdict."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support import manifests as m
from support.analysed import CALM
from support.traffic import Traffic

if TYPE_CHECKING:
    from support.scenario import Scenario

RATE = 20
WEIGHT = 40
APP = {"app": "chat"}
COMMAND = Path(sys.executable).with_name("inference-rollouts")


async def analysis(*args: str, stdin: str = "") -> tuple[int, str, str]:
    """Exit code and output of ``inference-rollouts analysis ARGS``."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        COMMAND, "analysis", *args, stdin=pipe, stdout=pipe, stderr=pipe
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(
    ("extra", "codes"),
    [
        pytest.param((), {0, 3}, id="a-good-version-is-not-failed"),
        pytest.param(("--fault", "slow_factor=6"), {1}, id="one-six-times-as-slow-is-failed"),
    ],
)
async def test_a_version_inside_a_pool_is_judged_by_the_pickers_series(
    scenario: Scenario, tmp_path: Path, extra: tuple[str, ...], codes: set[int]
) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps(CALM))
    await scenario.apply(
        m.gateway(),
        *m.picker_rights(),
        m.pool("chat", APP),
        *m.picker("picker", "chat"),
        m.route("chat", m.pool_ref("chat")),
    )
    await scenario.until_available("picker")
    template = m.pod_template(m.simulated_vllm("one"), labels=APP)
    routing = {"sharedPool": "chat"}
    steps = m.steps(WEIGHT)
    await scenario.apply(m.rollout("chat", template, routing, replicas=5, canary_steps=steps))
    await scenario.until_healthy("chat", timeout_s=180)
    await scenario.until_accepted("chat")
    async with Traffic(await scenario.address(), model="mymodel", rate=RATE) as traffic:
        container = m.simulated_vllm("two", *extra)
        await scenario.revise("chat", {"spec": {"containers": [container]}})
        await scenario.until_paused("chat", WEIGHT, timeout_s=180)
        hashes = await scenario.hashes("chat")
        # Fifty seconds of traffic on both, for thirty seconds of windows.
        await traffic.until_answers(RATE * 50, timeout_s=300)
        code, text, notes = await analysis(
            *("capture", "--prometheus", scenario.cluster.prometheus),
            *("--namespace", scenario.namespace, "--rollout", "chat", "--arms", "versions"),
            *("--canary-hash", hashes["current"], "--stable-hash", hashes["stable"]),
            *("--minutes", "0.5", "--window", "5", "--policy", str(policy)),
        )
    assert code == 0, notes
    assert traffic.failures == []
    cells: dict[str, Any] = json.loads(text)
    names = {
        arm: {p["name"] for p in cells["pods"] if p["arm"] == arm} for arm in ("canary", "stable")
    }
    pods = {
        arm: {p["metadata"]["name"] for p in await scenario.pods_of(hashes[of])}
        for arm, of in (("canary", "current"), ("stable", "stable"))
    }
    assert names["canary"] <= pods["canary"]
    # Of stable only the control sample is the reference, on as many pods as the canary has.
    assert names["stable"] <= pods["stable"]
    totals = {
        arm: sum(sum(filter(None, p["requests"])) for p in cells["pods"] if p["arm"] == arm)
        for arm in names
    }
    assert totals["canary"] > 0
    # The control has as large a share as the canary.
    assert totals["stable"] == pytest.approx(totals["canary"], rel=0.35)
    for pod in cells["pods"]:
        assert pod["covered"] == pod["requests"]
    code, verdict, problems = await analysis("evaluate", "-", stdin=text)
    assert code in codes, problems + verdict + notes
