"""How a Job tells Argo Rollouts one of three outcomes with nothing but "succeeded" or "failed".

A metric with ``count: 3, failureLimit: 1, consecutiveSuccessLimit: 2`` becomes Successful after
two successes in a row, Failed after two failures, and Inconclusive after success, failure,
success (argo-rollouts v1.10, utils/analysis and analysis/analysis.go). So a verdict takes two or
three Jobs; the first one computes it and the others replay it.

The Web provider knows the three outcomes, and no "not yet" for its last measurement. An answer
that is an HTTP error is a measurement in Error, which Argo takes again after ten seconds and does
not count; how many of them in a row it bears is the metric's ``consecutiveErrorLimit``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

COUNT: Final = 3
FAILURE_LIMIT: Final = 1
CONSECUTIVE_SUCCESS_LIMIT: Final = 2

DEFAULT_ERROR_LIMIT: Final = 4
"""Argo's ``consecutiveErrorLimit`` where a metric has none; kept for errors that are ones."""
ERROR_RETRY_S: Final = 10.0
"""Time between an Error and the next measurement (DefaultErrorRetryInterval)."""

SUCCEEDED: Final = 0
FAILED: Final = 1


class Outcome(StrEnum):
    """What the AnalysisRun shall become."""

    SUCCESSFUL = "Successful"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"


def exit_code(outcome: Outcome, measured: int) -> int:
    """The Job's exit code; ``measured``: ``status.metricResults[].count`` of the AnalysisRun.

    An inconclusive verdict alternates: success on an even count, else failure. The count leaves
    out measurements that ended in an Error, which a Job's own number does not.
    """
    if outcome is Outcome.SUCCESSFUL:
        return SUCCEEDED
    if outcome is Outcome.FAILED:
        return FAILED
    return SUCCEEDED if measured % 2 == 0 else FAILED


def error_limit(*waits_s: float) -> int:
    """The ``consecutiveErrorLimit`` with which the last Web measurement can wait, once or more."""
    return DEFAULT_ERROR_LIMIT + sum(math.ceil(wait_s / ERROR_RETRY_S) for wait_s in waits_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebMeasurement:
    """Where in its AnalysisRun a Web measurement stands."""

    last: bool
    """Whether a success would end the AnalysisRun as Successful."""
    repeatable: bool
    """Whether Argo takes it again after an Error, and others that are no wait of ours."""


def web_measurement(run: Mapping[str, Any], metric: str) -> WebMeasurement:
    """What the AnalysisRun's own counts say about the measurement that it takes now."""
    spec = next(item for item in run["spec"]["metrics"] if item["name"] == metric)
    results = run.get("status", {}).get("metricResults") or []
    result: Mapping[str, Any] = next((r for r in results if r["name"] == metric), {})
    count = spec.get("count")
    limit = int(spec.get("consecutiveErrorLimit", DEFAULT_ERROR_LIMIT))
    return WebMeasurement(
        last=count is not None and int(result.get("count", 0)) + 1 >= int(count),
        repeatable=int(result.get("consecutiveError", 0)) < limit - DEFAULT_ERROR_LIMIT,
    )
