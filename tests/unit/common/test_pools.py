"""InferencePools of both API groups, read in one place."""

from __future__ import annotations

from typing import Any

import pytest

from inference_common.pods import label_selector
from inference_common.pools import (
    POOLS,
    hash_of,
    is_v1,
    picker_ref,
    picker_service,
    ports_of,
    selector_of,
)

V1: dict[str, Any] = {
    "apiVersion": "inference.networking.k8s.io/v1",
    "spec": {
        "selector": {"matchLabels": {"app": "vllm", "rollouts-pod-template-hash": "abc"}},
        "targetPorts": [{"number": 8000}, {"number": 8001}],
        "endpointPickerRef": {"name": "epp", "port": {"number": 9002}},
    },
}
V1ALPHA2: dict[str, Any] = {
    "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
    "spec": {
        "selector": {"app": "vllm", "rollouts-pod-template-hash": "abc"},
        "targetPortNumber": 8000,
        "extensionRef": {"name": "epp"},
    },
}


@pytest.mark.parametrize(
    ("pool", "v1", "ports"),
    [pytest.param(V1, True, (8000, 8001), id="v1"), pytest.param(V1ALPHA2, False, (8000,), id="x")],
)
def test_both_api_groups_say_the_same(
    pool: dict[str, Any], v1: bool, ports: tuple[int, ...]
) -> None:
    assert is_v1(pool) is v1
    assert label_selector(selector_of(pool)) == "app=vllm,rollouts-pod-template-hash=abc"
    assert ports_of(pool) == ports
    assert hash_of(pool) == "abc"
    assert picker_service(pool) == "epp"


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"spec": {}}, id="empty-spec"),
        pytest.param({"spec": {"selector": None, "targetPorts": None}}, id="nulls"),
        pytest.param({"spec": {"selector": {"matchLabels": None}}}, id="null-labels"),
        pytest.param({"spec": {"endpointPickerRef": {}}}, id="empty-reference"),
    ],
)
def test_what_is_absent_selects_nothing(pool: dict[str, Any]) -> None:
    assert (selector_of(pool), ports_of(pool), hash_of(pool)) == ({}, (), None)
    assert picker_ref(pool) is None


def test_a_flat_selector_may_have_a_label_named_match_labels() -> None:
    assert selector_of({"spec": {"selector": {"matchLabels": "x"}}}) == {"matchLabels": "x"}


def test_a_reference_to_another_kind_is_no_service() -> None:
    pool = {"spec": {"endpointPickerRef": {"kind": "Gateway", "name": "epp"}}}
    assert picker_service(pool) is None
    assert picker_ref(pool) == {"kind": "Gateway", "name": "epp"}


def test_resources_are_found_by_group() -> None:
    assert {group: resource.version for group, resource in POOLS.items()} == {
        "inference.networking.k8s.io": "v1",
        "inference.networking.x-k8s.io": "v1alpha2",
    }
