"""The explanation agrees with the plan that the server would carry out, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from inference_common.kube import HTTPROUTE, POD, ROLLOUT, SERVICE
from inference_plugin.carriers import Permissions
from inference_plugin.explain.explanation import Explanation, explain
from inference_plugin.explain.weights import patched
from support.memory_cluster import (
    NAMESPACE,
    MemoryCluster,
    make_pod,
    make_rollout,
    make_route,
    service_ref,
    weights_of,
)

NOW = 1_000_000.0
STEPS = [{"setWeight": 10}, {"pause": {}}, {"setWeight": 50}]


@pytest.fixture
def cluster() -> MemoryCluster:
    """A Rollout with two Services whose canary is at its first step, nothing commanded yet."""
    found = MemoryCluster()
    for role in ("stable", "canary"):
        found.put(SERVICE, {"metadata": {"name": role}, "spec": {"selector": {"role": role}}})
        found.put(POD, make_pod(f"{role}-0", {"role": role}))
    found.put(HTTPROUTE, make_route("chat", [service_ref("stable"), service_ref("canary", 0)]))
    found.accept("chat")
    rollout = make_rollout("chat", {"httpRoute": "chat"}, stable="h1", canary="h2")
    rollout["spec"]["strategy"]["canary"] |= {
        "stableService": "stable",
        "canaryService": "canary",
        "steps": STEPS,
    }
    found.put(ROLLOUT, rollout)
    return found


def explained(cluster: MemoryCluster, available: int = 1) -> Explanation:
    rollout = cluster.objects[ROLLOUT, NAMESPACE, "chat"]
    found = explain(
        rollout, cluster, available=lambda _: available, now=NOW, permissions=Permissions()
    )
    assert found is not None
    assert cluster.writes == []
    return found


def then(found: Explanation) -> dict[str, int | None]:
    return {each.item.rpartition("/")[2]: each.then for each in found.weights}


def status(cluster: MemoryCluster, **values: Any) -> None:
    cluster.change(ROLLOUT, "chat", lambda rollout: rollout["status"].update(values))


@pytest.mark.parametrize(
    ("values", "available", "desired", "source"),
    [
        pytest.param({}, 1, 10, "step 1 of 3", id="first step"),
        pytest.param({"currentStepIndex": 2}, 1, 50, "step 3 of 3", id="third step"),
        pytest.param({}, 0, 0, "no available pod yet; step 1 of 3 asks for 10", id="loading"),
        pytest.param({"abort": True}, 1, 0, "aborted", id="aborted"),
        pytest.param({"currentPodHash": "h1"}, 1, 0, "fully promoted", id="promoted"),
        pytest.param({"currentStepIndex": 3}, 1, 0, "no step decides", id="past the steps"),
    ],
)
def test_what_is_asked_for_follows_the_status(
    cluster: MemoryCluster, values: dict[str, Any], available: int, desired: int, source: str
) -> None:
    status(cluster, **values)
    found = explained(cluster, available)
    assert found.desired == desired
    assert source in found.source


async def test_what_would_be_written_is_what_the_server_writes(cluster: MemoryCluster) -> None:
    found = explained(cluster)
    assert then(found) == {"stable": 90, "canary": 10}
    [write] = found.writes
    # Showing what it would make of the object leaves the patch itself alone.
    assert {"op": "add", "path": "/metadata/annotations", "value": {}} in write.body
    route = cluster.objects[HTTPROUTE, NAMESPACE, "chat"]
    cluster.put(HTTPROUTE, patched(route, write.body))
    assert weights_of(cluster, "chat") == {"stable": 90, "canary": 10}
    again = explained(cluster)
    assert again.writes == ()
    assert [each.commanded for each in again.weights] == [90, 10]
    assert again.awaited[0][0] == "WaitingForGateway"
    cluster.accept("chat")
    assert explained(cluster).settled


def test_a_refused_configuration_is_the_whole_answer(cluster: MemoryCluster) -> None:
    def misname(rollout: Any) -> None:
        canary = rollout["spec"]["strategy"]["canary"]
        canary["trafficRouting"]["plugins"]["inference-rollouts/router"]["httpRoute"] = "chet"

    cluster.change(ROLLOUT, "chat", misname)
    found = explained(cluster)
    assert "HTTPRoute llm/chet" in found.problem
    assert "found in llm: chat" in found.problem
    assert not found.settled


def test_before_the_first_revision_is_available_nothing_is_planned(cluster: MemoryCluster) -> None:
    status(cluster, stableRS="")
    assert "no revision has been available yet" in explained(cluster).problem


def test_a_rollout_of_another_router_has_no_explanation(cluster: MemoryCluster) -> None:
    found = make_rollout("other", None, stable="h1")
    found["metadata"]["namespace"] = NAMESPACE
    found["metadata"]["uid"] = "u"
    answer = explain(found, cluster, available=lambda _: 1, now=NOW, permissions=Permissions())
    assert answer is None


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        pytest.param({"op": "add", "path": "/list/-", "value": 3}, [1, 2, 3], id="append"),
        pytest.param({"op": "add", "path": "/list/0", "value": 0}, [0, 1, 2], id="insert"),
        pytest.param({"op": "remove", "path": "/list/0"}, [2], id="remove"),
        pytest.param({"op": "replace", "path": "/list/1", "value": 9}, [1, 9], id="replace"),
        pytest.param({"op": "test", "path": "/list/1", "value": 9}, [1, 2], id="test"),
    ],
)
def test_a_patch_changes_a_copy_as_rfc_6902_says(operation: Any, expected: list[int]) -> None:
    obj = {"list": [1, 2]}
    assert patched(obj, [operation])["list"] == expected
    assert obj == {"list": [1, 2]}
