"""When a pod takes traffic."""

from __future__ import annotations

from typing import Any

import pytest

from inference_common.pods import is_member, is_ready, label_selector, shows_ready, takes_requests


def make_pod(ready: str = "True", *, address: str = "127.1.0.1", **metadata: Any) -> dict[str, Any]:
    conditions = [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Ready", "status": ready},
    ]
    return {"metadata": metadata, "status": {"podIP": address, "conditions": conditions}}


@pytest.mark.parametrize(
    ("pod", "shows", "ready", "takes"),
    [
        pytest.param(make_pod(), True, True, True, id="ready"),
        pytest.param(make_pod("False"), False, False, False, id="unready"),
        pytest.param(make_pod("Unknown"), False, False, False, id="node-lost"),
        pytest.param(
            make_pod(deletionTimestamp="2026-11-21T10:00:00Z"), True, False, False, id="terminating"
        ),
        pytest.param(make_pod(address=""), True, True, False, id="no-address-yet"),
        pytest.param({"metadata": {}}, False, False, False, id="no-status-yet"),
    ],
)
def test_only_ready_pods_that_stay_take_requests(
    pod: dict[str, Any], shows: bool, ready: bool, takes: bool
) -> None:
    assert (shows_ready(pod), is_ready(pod), takes_requests(pod)) == (shows, ready, takes)


@pytest.mark.parametrize(
    ("labels", "selector", "member"),
    [
        pytest.param({"a": "1", "b": "2"}, {"a": "1"}, True, id="all-there"),
        pytest.param({"a": "1"}, {"a": "1", "b": "2"}, False, id="one-missing"),
        pytest.param({"a": "2"}, {"a": "1"}, False, id="another-value"),
        pytest.param({"a": "1"}, {}, False, id="empty-selects-nothing"),
        pytest.param(None, {"a": "1"}, False, id="no-labels"),
    ],
)
def test_a_member_carries_every_label(
    labels: dict[str, str] | None, selector: dict[str, str], member: bool
) -> None:
    assert is_member({"metadata": {"labels": labels}}, selector) is member


def test_a_label_selector_is_sorted() -> None:
    assert label_selector({"b": "2", "a": "1"}) == "a=1,b=2"
