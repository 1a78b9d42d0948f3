"""`calibrate`: A/A on stable pods, and the priors file that it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

from inference_analysis.calibrating import Calibration, calibrated
from inference_analysis.checking import parse
from inference_analysis.command import app
from inference_analysis.errors import InputError
from inference_analysis.policies import Policy
from inference_analysis.priors import applied, read
from support.analysis_simulation import TTFT, Fleet, cells

if TYPE_CHECKING:
    from pathlib import Path

QUIET = Fleet(canary=1, stable=8, windows=60, requests=500.0, drift_sd=0.0, metrics={"ttft": TTFT})


def learnt(fleet: Fleet, seed: int = 5, **options: Any) -> Calibration:
    settings: dict[str, Any] = {"canary_pods": 1, "minutes": 30.0, "looks": 3, "splits": 20}
    return calibrated(
        [fleet.observe(np.random.default_rng(seed))],
        Policy(),
        rng=np.random.default_rng(1),
        **(settings | options),
    )


@pytest.mark.parametrize("sd", [0.02, 0.05, 0.1])
def test_the_prior_is_what_pods_differ_by_beyond_sampling(sd: float) -> None:
    fleets = [replace(QUIET, pod_sd=sd, stable=12) for _ in range(12)]
    found = [
        learnt(fleet, seed=seed, splits=1).priors.metrics["ttft"].sd
        for seed, fleet in enumerate(fleets)
    ]
    # A sample variance on eleven degrees of freedom, twelve times: s.e. 9 % of the sd.
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(sd, rel=0.27)


def test_requests_and_errors_are_learnt_too() -> None:
    priors = learnt(QUIET, splits=1).priors
    assert priors.requests_per_pod_minute == pytest.approx(500.0, rel=0.02)
    assert priors.error_share == pytest.approx(0.005, rel=0.15)
    # exp(.7^2) - 1 = .632, square root .795, read from bucket midpoints.
    assert priors.metrics["ttft"].variation == pytest.approx(0.8, rel=0.2)


def test_identical_pods_are_not_failed() -> None:
    found = learnt(replace(QUIET, drift_sd=0.05), splits=40)
    assert found.false_alarms <= 0.05
    assert found.least() <= 0.05
    assert found.blocks == 2
    assert (found.canary_pods, found.stable_pods) == (1, 7)


def test_history_makes_small_fleets_see_more() -> None:
    found = learnt(replace(QUIET, stable=4), splits=20)
    ttft = next(g for g in found.gates if g.gate == "ttft/mean")
    assert ttft.mde_with_history < 0.7 * ttft.mde


def test_a_slow_pod_among_few_shows_as_false_alarms() -> None:
    """One pod of eight is 20 % slow; pretending that it is the canary fails, in 1 split of 8."""
    found = learnt(replace(QUIET, slow_pods=(1,)), splits=120, looks=1)
    assert found.false_alarms == pytest.approx(0.125, abs=0.08)
    assert found.least() > 0.05
    assert found.reasons


@pytest.mark.parametrize(
    ("fleet", "options", "message"),
    [
        pytest.param(QUIET, {"minutes": 90.0}, "no stretch of 90 minutes .*has 60", id="too-short"),
        pytest.param(
            replace(QUIET, stable=3), {}, "at most 3 stable pods; .* needs 4", id="too-few-pods"
        ),
    ],
)
def test_history_that_says_nothing_is_refused(
    fleet: Fleet, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        learnt(fleet, **options)


def written(folder: Path, *, stable_only: bool) -> Path:
    content: Any = cells(QUIET.observe(np.random.default_rng(3)))
    if stable_only:
        content["pods"] = [pod for pod in content["pods"] if pod["arm"] == "stable"]
    file = folder / f"cells-{stable_only}.json"
    file.write_text(json.dumps(content))
    return file


def test_the_priors_file_moderates_the_next_verdict(tmp_path: Path) -> None:
    history, priors = written(tmp_path, stable_only=True), tmp_path / "priors.json"
    options = ["--splits", "10", "--looks", "2", "--minutes", "60", "--output", str(priors)]
    result = CliRunner().invoke(app, ["calibrate", str(history), *options])
    assert result.exit_code == 0, result.output
    assert "false alarms: 0 %" in result.stdout
    text = priors.read_text()
    assert json.loads(text)["schema"] == "inference-rollouts.io/analysis-priors/v1"
    CliRunner().invoke(app, ["calibrate", str(history), *options])
    assert priors.read_text() == text
    both = written(tmp_path, stable_only=False)
    result = CliRunner().invoke(app, ["evaluate", str(both), "--json", "--priors", str(priors)])
    gate = next(g for g in json.loads(result.stdout)["gates"] if g["name"] == "ttft/mean")
    assert gate["method"] == "pod t, additive variance, moderated"
    # Seven degrees of freedom of eight stable pods and seven of the history's.
    assert gate["degreesOfFreedom"] == 14


def test_priors_of_another_length_are_left_out_and_said_to_be(tmp_path: Path) -> None:
    priors = tmp_path / "priors.json"
    result = CliRunner().invoke(
        app,
        [
            *("calibrate", str(written(tmp_path, stable_only=True)), "--splits", "10"),
            *("--minutes", "20", "--output", str(priors)),
        ],
    )
    assert result.exit_code == 0, result.output
    both = parse(written(tmp_path, stable_only=False).read_bytes())
    policy, remarks = applied(both.policy, read(priors), both.windows)
    assert policy.priors == {}
    assert remarks == (
        "priors left out: learnt over 20 minutes, this file has 60. Calibrate with --minutes 60",
    )


def test_a_file_without_a_canary_is_history_and_no_verdict(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(written(tmp_path, stable_only=True))])
    assert result.exit_code == 2
    assert "none of arm 'canary'" in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "no JSON", id="no-json"),
        pytest.param('{"schema": "other"}', "schema: Input should be", id="other-schema"),
        pytest.param("[]", r"\(file\): ", id="no-object"),
    ],
)
def test_what_is_no_priors_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "priors.json"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read(file)
