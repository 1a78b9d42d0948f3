"""From Kubernetes objects to endpoints."""

from typing import Any

import pytest

from inference_picker.cluster import endpoints_of, pool_resource
from inference_picker.errors import ConfigError

POOL_V1 = {
    "spec": {
        "selector": {"matchLabels": {"app": "m"}},
        "targetPorts": [{"number": 8000}, {"number": 8001}],
    }
}
POOL_V1ALPHA2 = {"spec": {"selector": {"app": "m"}, "targetPortNumber": 8000}}


def make_pod(name: str = "a", **changes: Any) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"app": "m", **changes.pop("labels", {})}}
    if changes.pop("terminating", False):
        metadata["deletionTimestamp"] = "2026-11-21T10:00:00Z"
    ready = "True" if changes.pop("ready", True) else "False"
    return {
        "metadata": metadata,
        "status": {
            "podIP": changes.pop("ip", "10.0.0.1"),
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": ready},
            ],
        },
    }


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        pytest.param(POOL_V1, ["10.0.0.1:8000", "10.0.0.1:8001"], id="v1"),
        pytest.param(POOL_V1ALPHA2, ["10.0.0.1:8000"], id="v1alpha2"),
        pytest.param({"spec": {"targetPortNumber": 1}}, [], id="no-selector-selects-nothing"),
        pytest.param({"spec": {"selector": {"app": "m"}}}, [], id="no-port"),
        pytest.param({}, [], id="empty"),
    ],
)
def test_each_port_of_each_member_is_an_endpoint(pool: dict[str, Any], expected: list[str]) -> None:
    assert [each.address for each in endpoints_of(pool, [make_pod()], {})] == expected


@pytest.mark.parametrize(
    ("labels", "version"),
    [
        pytest.param({"rollouts-pod-template-hash": "abc"}, "abc", id="rollout"),
        pytest.param({"inference-rollouts.io/version": "v7"}, "v7", id="own-label"),
        pytest.param(
            {"rollouts-pod-template-hash": "abc", "inference-rollouts.io/version": "v7"},
            "abc",
            id="hash-first",
        ),
        pytest.param({}, "", id="none"),
    ],
)
def test_the_version_is_the_hash_or_the_label(labels: dict[str, str], version: str) -> None:
    (endpoint,) = endpoints_of(POOL_V1ALPHA2, [make_pod(labels=labels)], {})

    assert endpoint.version == version


def test_pods_outside_the_selector_are_no_members() -> None:
    pods = [make_pod("b", ip="10.0.0.2"), make_pod("a"), make_pod("c", labels={"app": "x"})]

    found = list(endpoints_of(POOL_V1ALPHA2, pods, {"10.0.0.2:8000": frozenset({"v1"})}))

    assert [(each.pod, each.models) for each in found] == [("a", None), ("b", frozenset({"v1"}))]


def test_ipv6_addresses_are_written_in_brackets() -> None:
    (endpoint,) = endpoints_of(POOL_V1ALPHA2, [make_pod(ip="fd00::1")], {})

    assert endpoint.address == "[fd00::1]:8000"


X = "inference.networking.x-k8s.io"
V1 = "inference.networking.k8s.io"


def test_an_unknown_group_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=f"--pool-group example.com: .* Use {V1} or {X}"):
        pool_resource("example.com")
