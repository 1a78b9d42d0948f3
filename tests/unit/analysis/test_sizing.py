"""`plan`: the figures of docs/statistics.md's sources, and what the command says."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from inference_analysis.command import app
from inference_analysis.sizing import (
    Setup,
    Traffic,
    detectable,
    final_level,
    minutes_needed,
    pods_needed,
    prompts_needed,
)

if TYPE_CHECKING:
    from pathlib import Path

PODS = Traffic(sd=0.0422, variation=0.795, per_minute=100.0)
SETUP = Setup(canary=2, stable=8, minutes=30.0)


@pytest.mark.parametrize(
    ("canary", "stable", "percent"),
    [(1, 3, 23), (1, 9, 14), (2, 8, 10), (4, 16, 7), (8, 24, 5)],
)
def test_what_is_found_is_what_the_design_tabulates(
    canary: int, stable: int, percent: float
) -> None:
    """Table of the design: .05 one-sided, power .9, 30 windows, 3,000 requests a pod.

    Pod sd 2 % and drift 5 % of autocorrelation .8: .02^2 + .05^2 * 9 / 30 = .0339^2. The table's
    degrees of freedom are those of all pods.
    """
    traffic = Traffic(sd=0.0339, variation=0.795, per_minute=100.0)
    found = detectable(Setup(canary=canary, stable=stable, minutes=30.0), traffic, 0.05)
    assert 100.0 * math.expm1(found) == pytest.approx(percent, abs=2.6 if stable == 3 else 1.0)


def test_the_last_look_costs_little_more_than_a_single_one() -> None:
    """O'Brien-Fleming: nominal .0243 of .025 at the last of one look, .0211 at the last of five.

    2.031 is the published last bound of five even looks at .025 (Reboussin and others 2000).
    """
    assert final_level(0.025 / 0.8, 1) == pytest.approx(0.025, rel=1e-6)
    assert final_level(0.025 / 0.8, 5) == pytest.approx(0.02113, abs=2e-5)


def test_more_pods_and_more_minutes_find_less() -> None:
    at = detectable(SETUP, PODS, 0.01)
    assert detectable(Setup(canary=4, stable=16, minutes=30.0), PODS, 0.01) < at
    assert detectable(Setup(canary=2, stable=8, minutes=60.0), PODS, 0.01) < at
    assert detectable(Setup(canary=1, stable=2, minutes=30.0), PODS, 0.01) == math.inf
    assert detectable(Setup(canary=3, stable=0, minutes=30.0, paired=True), PODS, 0.01) == math.inf


def test_what_is_said_to_be_needed_is_enough_and_one_less_is_not() -> None:
    wanted = math.log(1.1)
    pods = pods_needed(wanted, SETUP, PODS, 0.01)
    assert pods is not None
    enough = Setup(canary=pods[0], stable=pods[1], minutes=30.0)
    assert detectable(enough, PODS, 0.01) <= wanted
    fewer = Setup(canary=pods[0] - 1, stable=4 * (pods[0] - 1), minutes=30.0)
    assert detectable(fewer, PODS, 0.01) > wanted
    noisy = Traffic(sd=0.01, variation=2.0, per_minute=10.0)
    minutes = minutes_needed(wanted, SETUP, noisy, 0.01)
    assert minutes is not None
    for span, found in ((minutes, True), (minutes - 2.0, False)):
        tried = Setup(canary=2, stable=8, minutes=span)
        assert (detectable(tried, noisy, 0.01) <= wanted) is found
    assert minutes_needed(wanted, Setup(canary=1, stable=3, minutes=30.0), PODS, 0.01) is None


def test_prompts_are_what_the_design_simulated() -> None:
    """5 points at power .9 and level .05: about 200 prompts of five answers, 1,000 of one."""
    assert prompts_needed(0.05, 5, 0.05) == pytest.approx(220, abs=25)
    assert prompts_needed(0.05, 1, 0.05) == pytest.approx(1000, abs=30)


def test_the_command_says_what_is_found_and_what_is_needed() -> None:
    result = CliRunner().invoke(app, ["plan", "--canary-pods", "8", "--stable-pods", "32"])
    assert result.exit_code == 0
    assert "8 v 32 pods in 30 minutes find +" in result.stdout
    result = CliRunner().invoke(app, ["plan", "--json"])
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    assert found["schema"] == "inference-rollouts.io/analysis-plan/v1"
    assert found["metrics"]["latency"]["canaryPodsNeeded"] > 1


def test_adapters_on_few_pods_are_told_to_take_an_hour() -> None:
    result = CliRunner().invoke(app, ["plan", "--adapters", "--canary-pods", "2"])
    assert result.exit_code == 3
    assert "at least 60 minutes and at most 2 looks, not 5" in result.stdout


def test_a_priors_file_that_is_none_is_bad_input(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text("{}")
    result = CliRunner().invoke(app, ["plan", "--priors", str(file)])
    assert result.exit_code == 2
    assert "Write the file with `analysis calibrate`" in result.stderr
