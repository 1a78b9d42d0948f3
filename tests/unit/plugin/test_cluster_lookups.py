"""What the cluster finds by its indexes is what a look through everything would find."""

from __future__ import annotations

import json
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from inference_common.kube import HTTPROUTE, POD, REPLICASET, Kube
from inference_common.names import COMMANDED_ANNOTATION, HASH_LABEL
from inference_plugin.cluster import Cluster
from inference_plugin.commanded import Commanded, annotation_value
from inference_plugin.telemetry import Metrics

Object = dict[str, Any]
SPACES = ("llm", "prod")
LABELS = st.dictionaries(st.sampled_from(["app", HASH_LABEL]), st.sampled_from("ab"))
SOMETHING = st.tuples(st.sampled_from(SPACES), st.sampled_from("xyz"), LABELS)


def make_cluster() -> Cluster:
    return Cluster(cast("Kube", None), Metrics(CollectorRegistry()))


def make(version: int, namespace: str, name: str, labels: dict[str, str]) -> Object:
    metadata = {"namespace": namespace, "name": name, "uid": f"{namespace}-{name}"}
    metadata["resourceVersion"] = str(version)
    return {"metadata": {**metadata, "labels": labels}, "spec": {}, "status": {}}


def names(found: Any) -> list[str]:
    return sorted(obj["metadata"]["name"] for obj in found)


@given(st.lists(SOMETHING), LABELS, st.sampled_from(SPACES))
def test_pods_of_a_selector(
    pods: list[tuple[str, str, dict[str, str]]], selector: dict[str, str], namespace: str
) -> None:
    cluster = make_cluster()
    now: dict[tuple[str, str], dict[str, str]] = {}
    for version, (space, name, labels) in enumerate(pods, start=1):
        cluster._caches[POD].put(make(version, space, name, labels))
        now[space, name] = labels
    expected = sorted(
        name
        for (space, name), labels in now.items()
        # A pool without a selector has no members.
        if selector and space == namespace and selector.items() <= labels.items()
    )
    assert names(cluster.pods(namespace, selector)) == expected


@given(st.lists(SOMETHING), st.sampled_from(SPACES))
def test_replica_sets_of_a_hash(
    sets: list[tuple[str, str, dict[str, str]]], namespace: str
) -> None:
    cluster = make_cluster()
    now: dict[tuple[str, str], dict[str, str]] = {}
    for version, (space, name, labels) in enumerate(sets, start=1):
        cluster._caches[REPLICASET].put(make(version, space, name, labels))
        now[space, name] = labels
    here = {name: labels for (space, name), labels in now.items() if space == namespace}
    assert names(cluster.replica_sets(namespace)) == sorted(here)
    expected = sorted(name for name, labels in here.items() if labels.get(HASH_LABEL) == "a")
    assert names(cluster.replica_sets(namespace, "a")) == expected


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.frozensets(st.sampled_from("ab")))))
def test_carriers_of_a_rollout(routes: list[tuple[str, frozenset[str]]]) -> None:
    cluster = make_cluster()
    now: dict[str, frozenset[str]] = {}
    for version, (name, rollouts) in enumerate(routes, start=1):
        route = make(version, "llm", name, {})
        entries = [entry(rollout) for rollout in sorted(rollouts)]
        value = annotation_value(route, *entries) if entries else json.dumps({})
        route["metadata"]["annotations"] = {COMMANDED_ANNOTATION: value}
        cluster._caches[HTTPROUTE].put(route)
        now[name] = rollouts
    for rollout in "ab":
        found = sorted(name for _, _, name in cluster.carriers(f"llm/{rollout}"))
        assert found == sorted(name for name, marks in now.items() if rollout in marks)
    assert len(cluster.carriers()) == sum(bool(marks) for marks in now.values())


def entry(rollout: str) -> Commanded:
    return Commanded(
        rollout=f"llm/{rollout}",
        uid="u",
        stable="h1",
        canary="h2",
        desired=10,
        maximum=100,
        placed=(),
    )
