"""Exit codes against the rules by which Argo Rollouts assesses a metric."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_analysis.argo.protocol import (
    CONSECUTIVE_SUCCESS_LIMIT,
    COUNT,
    FAILURE_LIMIT,
    Outcome,
    error_limit,
    exit_code,
    web_measurement,
)


def assessed(measured: list[str]) -> str:
    """Phase of a metric after these measurements, or Running.

    argo-rollouts v1.10.2, analysis/analysis.go: assessMetricFailureInconclusiveOrError, then
    assessMetricStatus; consecutiveErrorLimit is 4.
    """
    failed, count, successes, errors = 0, 0, 0, 0
    for phase in measured:
        count += phase != "Error"
        failed += phase == "Failed"
        successes = successes + 1 if phase == "Successful" else 0
        errors = errors + 1 if phase == "Error" else 0
        if failed > FAILURE_LIMIT:
            return "Failed"
        if errors > 4:
            return "Error"
        if successes >= CONSECUTIVE_SUCCESS_LIMIT:
            return "Successful"
        if count >= COUNT:
            return "Inconclusive"
    return "Running"


def played(outcome: Outcome, errors_before: list[int]) -> tuple[str, list[str]]:
    """Jobs one after the other; ``errors_before[i]`` Errors come before the i-th of them."""
    measured: list[str] = []
    for errors in [*errors_before, 0, 0, 0]:
        measured += ["Error"] * errors
        count = sum(phase != "Error" for phase in measured)
        measured.append("Failed" if exit_code(outcome, count) else "Successful")
        if assessed(measured) != "Running":
            break
    return assessed(measured), measured


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome.SUCCESSFUL, ["Successful", "Successful"]),
        (Outcome.FAILED, ["Failed", "Failed"]),
        (Outcome.INCONCLUSIVE, ["Successful", "Failed", "Successful"]),
    ],
)
def test_each_outcome_takes_two_or_three_jobs(outcome: Outcome, expected: list[str]) -> None:
    assert played(outcome, []) == (outcome.value, expected)


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("place", [0, 1, 2])
@given(errors=st.integers(1, 4))
def test_errors_at_one_place_change_no_outcome(outcome: Outcome, place: int, errors: int) -> None:
    assert played(outcome, [0] * place + [errors])[0] == outcome.value


@given(st.sampled_from(Outcome), st.lists(st.integers(0, 4), max_size=3))
def test_errors_between_all_measurements_at_most_pause_a_good_canary(
    outcome: Outcome, errors_before: list[int]
) -> None:
    # An Error sets Argo's count of successes in a row back to nought.
    found = played(outcome, errors_before)[0]
    assert found == outcome.value or (outcome, found) == (Outcome.SUCCESSFUL, "Inconclusive")


def asking(planned: int | None, limit: int | None, **result: int) -> dict[str, Any]:
    """An AnalysisRun that takes a Web measurement."""
    metric = {"name": "analysis", "count": planned, "consecutiveErrorLimit": limit}
    return {
        "spec": {"metrics": [{k: v for k, v in metric.items() if v is not None}]},
        "status": {"metricResults": [{"name": "analysis", **result}]} if result else {},
    }


@pytest.mark.parametrize(
    ("run", "last", "repeatable"),
    [
        pytest.param(asking(9, 16), False, True, id="the-first"),
        pytest.param(asking(9, 16, count=7), False, True, id="the-last-but-one"),
        pytest.param(asking(9, 16, count=8), True, True, id="the-last"),
        pytest.param(asking(9, 16, count=8, consecutiveError=12), True, False, id="waited-enough"),
        pytest.param(asking(9, None, count=8), True, False, id="no-limit-of-its-own"),
        pytest.param(asking(None, None, count=80), False, False, id="in-the-background"),
    ],
)
def test_the_last_web_measurement_can_wait_by_errors(
    run: dict[str, Any], last: bool, repeatable: bool
) -> None:
    found = web_measurement(run, "analysis")
    assert (found.last, found.repeatable) == (last, repeatable)


@given(st.integers(0, 100_000), st.integers(0, 100_000))
def test_as_many_errors_are_borne_as_the_waits_take_and_argos_own_four(
    retry_s: int, wait_s: int
) -> None:
    limit = error_limit(retry_s, wait_s)

    def waits(errors: int) -> bool:
        """After that many Errors, each ten seconds before the next measurement."""
        run = asking(1, limit, count=0, consecutiveError=errors)
        return web_measurement(run, "analysis").repeatable

    first_final = limit - 4
    assert not waits(first_final)
    assert first_final == 0 or waits(first_final - 1)
    # An Error at the beginning of each wait, and one each ten seconds until it is over.
    assert first_final == len(range(0, retry_s, 10)) + len(range(0, wait_s, 10))
