"""The weight of the step that a Rollout stands at, as the controller computes it."""

from __future__ import annotations

from typing import Any

import pytest

from inference_plugin.rollouts import step_weight
from inference_plugin.slim import slim_rollout

STEPS: list[dict[str, Any]] = [
    {"pause": {}},
    {"setWeight": 50},
    {"pause": {}},
    {"setWeight": 0},
    {"pause": {}},
]


def rollout(index: int | None, *, canary: Any = None, **status: Any) -> Any:
    found = {"stableRS": "h1", "currentPodHash": "h2", "currentStepIndex": index} | status
    return {
        "metadata": {"name": "chat", "namespace": "llm"},
        "spec": {"strategy": {"canary": {"steps": STEPS} | (canary or {})}},
        "status": {key: value for key, value in found.items() if value is not None},
    }


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(rollout(None), 0, id="no-index-is-the-first-step"),
        pytest.param(rollout(0), 0, id="before-any-setWeight"),
        pytest.param(rollout(1), 50, id="at-a-setWeight"),
        pytest.param(rollout(2), 50, id="after-it"),
        pytest.param(rollout(3), 0, id="at-a-lower-one"),
        pytest.param(rollout(5), None, id="past-the-last-step"),
        pytest.param(rollout(3, abort=True), None, id="aborted"),
        pytest.param(rollout(3, promoteFull=True), None, id="promoted-in-full"),
        pytest.param(rollout(3, currentPodHash="h1"), None, id="fully-promoted"),
        pytest.param(
            rollout(3, canary={"dynamicStableScale": True}), None, id="stable-is-scaled-down"
        ),
        pytest.param(rollout(0, canary={"steps": None}), None, id="no-steps"),
    ],
)
def test_step_decides_only_where_the_controller_goes_by_steps(
    obj: Any, expected: int | None
) -> None:
    assert step_weight(obj) == expected
    # What is kept in memory says the same.
    assert step_weight(slim_rollout(obj)) == expected
