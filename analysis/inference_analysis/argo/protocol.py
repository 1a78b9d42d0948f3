"""How a Job tells Argo Rollouts one of three outcomes with nothing but "succeeded" or "failed".

A metric with ``count: 3, failureLimit: 1, consecutiveSuccessLimit: 2`` becomes Successful after
two successes in a row, Failed after two failures, and Inconclusive after success, failure,
success (argo-rollouts v1.10, utils/analysis and analysis/analysis.go). So a verdict takes two or
three Jobs; the first one computes it and the others replay it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

COUNT: Final = 3
FAILURE_LIMIT: Final = 1
CONSECUTIVE_SUCCESS_LIMIT: Final = 2

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
