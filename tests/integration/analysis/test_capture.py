"""From the real Prometheus to a verdict: simulated vLLM pods of a Rollout under traffic."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support import manifests as m
from support.analysed import CALM
from support.deployments import served
from support.traffic import Traffic

if TYPE_CHECKING:
    from support.scenario import Scenario

RATE = 15
# At this weight each of the two canary pods gets as much as each of the three stable ones.
WEIGHT = 40
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


def options(scenario: Scenario, hashes: dict[str, str], policy: Path) -> list[str]:
    return [
        *("--prometheus", scenario.cluster.prometheus, "--namespace", scenario.namespace),
        *("--rollout", "chat", "--canary-hash", hashes["current"]),
        *("--stable-hash", hashes["stable"], "--minutes", "0.5", "--window", "5"),
        *("--warm-up", "5", "--policy", str(policy)),
    ]


@pytest.mark.parametrize(
    ("extra", "codes", "verdicts"),
    [
        pytest.param((), {0, 3}, {"pass", "inconclusive"}, id="a-good-canary-is-not-failed"),
        pytest.param(
            ("--fault", "slow_factor=3"), {1}, {"fail"}, id="one-three-times-as-slow-is-failed"
        ),
    ],
)
async def test_captured_cells_give_the_right_verdict(
    scenario: Scenario,
    tmp_path: Path,
    extra: tuple[str, ...],
    codes: set[int],
    verdicts: set[str],
) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps(CALM))
    await served(scenario, "one", replicas=3, canary_steps=m.steps(WEIGHT))
    async with Traffic(await scenario.address(), model="mymodel", rate=RATE) as traffic:
        container = m.simulated_vllm("two", *extra)
        await scenario.revise("chat", {"spec": {"containers": [container]}})
        await scenario.until_paused("chat", WEIGHT, timeout_s=180)
        await scenario.until_accepted("chat")
        hashes = await scenario.hashes("chat")
        # Thirty-five seconds of traffic on both, for thirty seconds of windows.
        await traffic.until_answers(RATE * 35, timeout_s=300)
        code, text, notes = await analysis("capture", *options(scenario, hashes, policy))
    assert code == 0, notes
    assert traffic.failures == []
    cells: dict[str, Any] = json.loads(text)
    for arm, pod_hash, pods in (("canary", "current", 2), ("stable", "stable", 3)):
        captured = [pod for pod in cells["pods"] if pod["arm"] == arm]
        assert {pod["name"] for pod in captured} == {
            pod["metadata"]["name"] for pod in await scenario.pods_of(hashes[pod_hash])
        }
        assert len(captured) == pods
        for pod in captured:
            assert sum(filter(None, pod["requests"])) > 0
            assert sum(filter(None, pod["errors"])) == 0
            assert set(pod["histograms"]) == {
                *("ttft", "itl", "tpot", "e2e", "prompt_tokens", "output_tokens")
            }
    code, verdict, problems = await analysis("evaluate", "--json", "-", stdin=text)
    assert code in codes, problems + verdict
    assert json.loads(verdict)["verdict"] in verdicts
    # Later the same windows give the same bytes, and pods told by their names are the same pods.
    end = str(cells["windows"]["start"][-1])
    again = [
        await analysis(
            "capture",
            *options(scenario, hashes, policy),
            "--end",
            end,
            "--pods-by",
            by,
        )
        for by in ("label", "label", "name")
    ]
    assert [code for code, _, _ in again] == [0, 0, 0]
    assert len({text for _, text, _ in again}) == 1
    # One command replays the past rollout as two did.
    looks = ("replay", "--looks", "2", "--json")
    piped = await analysis(*looks, "-", stdin=again[0][1])
    direct = await analysis(*looks, *options(scenario, hashes, policy), "--end", end)
    assert direct[:2] == piped[:2]
    assert direct[0] in codes, direct
    # Stable's history alone is what `calibrate` takes, and no verdict.
    history = [*options(scenario, hashes, policy), "--end", end, "--stable-only"]
    code, text, notes = await analysis("capture", *history)
    assert code == 0, notes
    assert json.loads(text)["pods"] == [
        pod for pod in json.loads(again[0][1])["pods"] if pod["arm"] == "stable"
    ]
    code, _, problems = await analysis("evaluate", "-", stdin=text)
    assert (code, "none of arm 'canary'" in problems) == (2, True)
