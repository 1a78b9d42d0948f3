"""What a Rollout's end leaves on the objects that it managed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from inference_common.kube import HTTPROUTE, INFERENCEMODEL
from inference_common.names import COMMANDED_ANNOTATION
from inference_plugin import commanded
from inference_plugin.commanded import Commanded, Placed
from inference_plugin.ends import release
from support.memory_cluster import NAMESPACE, apply_patch, make_model, make_route, pool_ref

A = f"InferencePool.inference.networking.k8s.io/{NAMESPACE}/a"
B = f"InferencePool.inference.networking.k8s.io/{NAMESPACE}/b"
MID = Commanded(
    rollout="llm/chat",
    uid="uid-chat",
    stable="h1",
    canary="h2",
    desired=10,
    maximum=100,
    placed=(Placed(place="#0", item=A, weight=90), Placed(place="#0", item=B, weight=10)),
    home=A,
)


def marked(obj: Any, *entries: Commanded) -> Any:
    obj["metadata"] |= {"namespace": NAMESPACE, "uid": "uid-object", "resourceVersion": "7"}
    value = commanded.annotation_value(obj, *entries)
    obj["metadata"]["annotations"] = {COMMANDED_ANNOTATION: value, "theirs": "stays"}
    return obj


def route(stable: int, canary: int, *more: Any) -> Any:
    return make_route("chat", [pool_ref("a", stable), pool_ref("b", canary), *more])


def released(obj: Any, entry: Commanded, stable_hash: str, resource: Any = HTTPROUTE) -> Any:
    patch = release(resource, obj, entry, None, stable_hash=stable_hash)
    return apply_patch(obj, patch.operations)


def weights(obj: Any) -> dict[str, int]:
    return {ref["name"]: ref["weight"] for ref in obj["spec"]["rules"][0]["backendRefs"]}


@pytest.mark.parametrize(
    ("entry", "stable_hash", "expected"),
    [
        pytest.param(MID, "h1", {"a": 100, "b": 0}, id="mid-canary"),
        pytest.param(MID, "", {"a": 100, "b": 0}, id="mid-canary-and-no-rollout-left-to-ask"),
        pytest.param(replace(MID, keep=True), "h1", {"a": 90, "b": 10}, id="onEnd-keep"),
        pytest.param(MID, "h2", {"a": 90, "b": 10}, id="the-canary-became-stable"),
        pytest.param(replace(MID, desired=100), "", {"a": 90, "b": 10}, id="it-had-everything"),
        pytest.param(
            replace(MID, desired=100), "h1", {"a": 100, "b": 0}, id="at-100-but-not-promoted"
        ),
        pytest.param(replace(MID, home=""), "h1", {"a": 90, "b": 10}, id="no-home-recorded"),
    ],
)
def test_traffic_ends_on_stable_unless_it_belongs_elsewhere(
    entry: Commanded, stable_hash: str, expected: dict[str, int]
) -> None:
    after = released(marked(route(90, 10), entry), entry, stable_hash)
    assert weights(after) == expected
    assert after["metadata"]["annotations"] == {"theirs": "stays"}


def test_other_backends_keep_their_share_at_the_end() -> None:
    obj = marked(route(45, 5, pool_ref("other", 50)), MID)
    assert weights(released(obj, MID, "h1")) == {"a": 50, "b": 0, "other": 50}


def test_reference_that_had_been_taken_out_comes_back_with_weight_zero() -> None:
    entry = replace(MID, removed=(("#0", json.dumps(pool_ref("b"))),))
    obj = marked(make_route("chat", [pool_ref("a", 100)]), entry)
    assert weights(released(obj, entry, "h1")) == {"a": 100, "b": 0}


def test_mark_of_another_rollout_stays() -> None:
    other = replace(MID, rollout="llm/other")
    after = released(marked(route(90, 10), MID, other), MID, "h1")
    assert list(commanded.read_all(after)) == ["llm/other"]


def test_stable_adapter_is_left_alone_in_the_list() -> None:
    entry = replace(
        MID,
        placed=(Placed(place="", item="v1", weight=90), Placed(place="", item="v2", weight=10)),
        home="v1",
    )
    model = make_model("m", {"name": "v1", "weight": 90}, {"name": "v2", "weight": 10})
    after = released(marked(model, entry), entry, "h1", INFERENCEMODEL)
    assert after["spec"]["targetModels"] == [{"name": "v1", "weight": 100}]
    assert COMMANDED_ANNOTATION not in after["metadata"]["annotations"]
