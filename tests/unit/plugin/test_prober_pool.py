from __future__ import annotations

from typing import Any

import pytest

from inference_plugin.prober.pool import is_stable, ready_since


def make_pod(status: str = "True", *, address: str | None = "127.1.0.1", **metadata: str) -> Any:
    condition = {
        "type": "Ready",
        "status": status,
        "lastTransitionTime": "1970-01-01T00:02:00Z",
    }
    return {"metadata": metadata, "status": {"podIP": address, "conditions": [condition]}}


@pytest.mark.parametrize(
    ("pod", "since"),
    [
        pytest.param(make_pod(), 120.0, id="ready"),
        pytest.param(make_pod("False"), None, id="not-ready"),
        pytest.param(make_pod(deletionTimestamp="1970-01-01T00:03:00Z"), None, id="ending"),
        pytest.param(make_pod(address=None), None, id="without-address"),
        pytest.param({"metadata": {}}, None, id="without-status"),
    ],
)
def test_a_pod_is_ready_since_its_condition_changed(pod: Any, since: float | None) -> None:
    assert ready_since(pod) == since


@pytest.mark.parametrize(
    ("rollout", "revision", "stable"),
    [
        pytest.param({"status": {"stableRS": "abc"}}, "abc", True, id="promoted"),
        pytest.param({"status": {"stableRS": "abc"}}, "def", False, id="canary"),
        pytest.param({"status": {}}, "abc", False, id="first-deploy"),
        pytest.param({"status": {"stableRS": ""}}, "", False, id="both-empty"),
        pytest.param({"status": {"stableRS": "abc"}}, None, False, id="revision-not-told"),
        pytest.param(None, "abc", False, id="no-rollout"),
    ],
)
def test_stable_is_what_the_rollout_says(rollout: Any, revision: str | None, stable: bool) -> None:
    assert is_stable(rollout, revision) is stable
