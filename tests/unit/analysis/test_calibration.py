"""The whole procedure on simulated fleets: a short form of tests/bench/analysis_calibration.py.

The same rows and bars with fewer runs. Seeds are fixed, so a run gives the same figures as the last
one; a bar may be missed by 2.6 standard errors of that number of runs.
"""

from __future__ import annotations

import pytest

from support.analysis_bars import SCENARIOS
from support.analysis_scenarios import FIVE_LOOKS, Scenario, keeps_bar, rate
from support.analysis_single_tests import BAR, OWN, SETTINGS, Setting, rejections

RUNS = 40
MANY_LOOKS_RUNS = 12
"""Where a run has four times as many looks."""
LEVEL_RUNS = 100


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(s, id=s.name.replace(" ", "-"))
        for s in SCENARIOS
        if s.at_most is not None or s.at_least is not None
    ],
)
def test_error_rates_and_power_keep_their_bars(scenario: Scenario) -> None:
    plan = scenario.plan
    many = plan.looks > FIVE_LOOKS.looks or not scenario.stop
    runs = MANY_LOOKS_RUNS if many else RUNS
    found = rate(scenario, runs)
    assert keeps_bar(scenario, found, runs), found


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(s, id=s.name.replace(" ", "-"))
        for s in SETTINGS
        if "typical" in s.name or "1:9" in s.name
    ],
)
def test_single_tests_keep_their_level_on_identical_versions(setting: Setting) -> None:
    found = rejections(setting, LEVEL_RUNS)
    allowed = BAR + 2.6 * (BAR * (1.0 - BAR) / LEVEL_RUNS) ** 0.5
    assert all(found[test] <= allowed for test in OWN), found


def test_requests_are_not_the_unit() -> None:
    (setting,) = (s for s in SETTINGS if s.name == "2v8, typical, load 1:1")
    found = rejections(setting, LEVEL_RUNS)
    assert found["Mann-Whitney"] > 0.2
    assert found["p99 ratio"] > 0.2
