from __future__ import annotations

from typing import Any

import pytest

from inference_analysis.argo.subjects import nothing_to_compare, planned_fraction, subject
from inference_analysis.errors import InputError

STEP = {"analysis": {"templates": [{"templateName": "ours"}]}}
OTHER = {"analysis": {"templates": [{"templateName": "smoke"}]}}
STEPS: list[dict[str, Any]] = [
    {"setWeight": 10},
    STEP,
    {"pause": {}},
    OTHER,
    {"setWeight": 50},
    STEP,
]


def run(**labels: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "chat-6d5f-2-1",
            "namespace": "llm",
            "uid": "u1",
            "creationTimestamp": "2026-01-31T12:00:00Z",
            "labels": labels,
            "ownerReferences": [
                {"kind": "Rollout", "name": "chat", "uid": "r1", "controller": True}
            ],
        },
        "status": {"metricResults": [{"name": "analysis", "count": 2, "error": 1}]},
    }


def rollout(stable: str = "9c1b", current: str = "6d5f") -> dict[str, Any]:
    return {
        "spec": {"strategy": {"canary": {"steps": STEPS}}},
        "status": {"stableRS": stable, "currentPodHash": current, "currentStepIndex": 1},
    }


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        # The looks last equally long, at weights 10, 10 and 50: 10/70, 20/70 and 70/70.
        pytest.param(1, 1 / 7, id="first"),
        pytest.param(3, 2 / 7, id="another-template-draws-on-the-same-ledger"),
        pytest.param(5, 1.0, id="last"),
        pytest.param(0, 1.0, id="no-analysis-there"),
        pytest.param(None, 1.0, id="unknown"),
        pytest.param(9, 1.0, id="no-such-step"),
    ],
)
def test_the_fraction_is_the_share_of_the_planned_pod_time(
    index: int | None, expected: float
) -> None:
    assert planned_fraction(STEPS, index) == pytest.approx(expected)


def test_errors_do_not_count_as_measurements() -> None:
    labels = {"rollout-type": "Step", "step-index": "1"}
    found = subject(run(**labels), rollout(), "analysis", canary_hash="6d5f", stable_hash="9c1b")
    assert (found.measured, found.background, found.rollout_uid) == (2, False, "r1")
    assert found.created_s == 1769860800.0  # date -d 2026-01-31T12:00:00Z +%s
    assert found.fraction == pytest.approx(1 / 7)


def test_an_analysisrun_of_an_experiment_is_refused() -> None:
    made = run()
    made["metadata"]["ownerReferences"][0]["kind"] = "Experiment"
    with pytest.raises(InputError, match="does not belong to a Rollout"):
        subject(made, rollout(), "analysis", canary_hash="a", stable_hash="b")


@pytest.mark.parametrize(
    ("stable", "current", "reason"),
    [
        pytest.param("", "6d5f", "first deployment", id="no-stable-version"),
        pytest.param("6d5f", "6d5f", "its stable one", id="promoted-already"),
        pytest.param("9c1b", "6d5f", "", id="two-versions"),
    ],
)
def test_without_an_older_version_there_is_nothing_to_compare(
    stable: str, current: str, reason: str
) -> None:
    about = subject(run(), rollout(), "analysis", canary_hash="6d5f", stable_hash="9c1b")
    found = nothing_to_compare(about, rollout(stable, current))
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("canary", "stable"),
    [
        pytest.param("", "9c1b", id="empty"),
        pytest.param("9c1b", "9c1b", id="equal"),
        pytest.param("9c1b", "6d5f", id="exchanged"),
    ],
)
def test_wrong_arguments_never_pass_as_a_first_deployment(canary: str, stable: str) -> None:
    about = subject(run(), rollout(), "analysis", canary_hash=canary, stable_hash=stable)
    with pytest.raises(InputError, match="podTemplateHashValue: Latest"):
        nothing_to_compare(about, rollout())
