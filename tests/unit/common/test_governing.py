"""Which Rollout divides a pool."""

from __future__ import annotations

from typing import Any

import pytest

from inference_common.governing import Governor, governor_of
from inference_common.kube import INFERENCEPOOL, INFERENCEPOOL_X
from inference_common.names import PLUGIN_NAME

Object = dict[str, Any]


def a_rollout(
    name: str = "chat", *, config: object = None, namespace: str = "llm", created: str = "2026"
) -> Object:
    plugins = {PLUGIN_NAME: {"sharedPool": "pool"} if config is None else config}
    return {
        "metadata": {
            "namespace": namespace,
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": created,
        },
        "spec": {"strategy": {"canary": {"trafficRouting": {"plugins": plugins}}}},
        "status": {"stableRS": "h1"},
    }


def test_the_rollout_that_names_the_pool_divides_it() -> None:
    found = governor_of([a_rollout()], "llm", "pool", INFERENCEPOOL.group)
    assert found == Governor(rollout="llm/chat", uid="uid-chat", stable="h1")


def test_before_its_first_version_is_available_a_rollout_has_no_stable_one() -> None:
    found = governor_of([a_rollout() | {"status": {}}], "llm", "pool", INFERENCEPOOL.group)
    assert found is not None
    assert found.stable == ""


@pytest.mark.parametrize(
    "rollout",
    [
        a_rollout(config={"sharedPool": "other"}),
        a_rollout(config={"sharedPool": "pool", "poolGroup": INFERENCEPOOL_X.group}),
        a_rollout(config={"httpRoute": "pool"}),
        a_rollout(config="text"),
        a_rollout(namespace="elsewhere"),
        a_rollout() | {"spec": {"strategy": {"blueGreen": {}}}},
        a_rollout() | {"spec": None},
    ],
    ids=["pool", "group", "route", "no-object", "namespace", "blue-green", "empty"],
)
def test_any_other_rollout_does_not(rollout: Object) -> None:
    assert governor_of([rollout], "llm", "pool", INFERENCEPOOL.group) is None


def test_of_two_the_older_one_counts() -> None:
    rollouts = [a_rollout("new", created="2026-02"), a_rollout("old", created="2026-01")]
    found = governor_of(rollouts, "llm", "pool", INFERENCEPOOL.group)
    assert found is not None
    assert found.rollout == "llm/old"
