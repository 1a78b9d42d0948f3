"""A change wakes whoever has looked at what changed, and nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_common.kube import HTTPROUTE, INFERENCEPOOL, POD, REPLICASET, SERVICE, Resource
from inference_plugin.footprints import Footprint, Interests, marks_of
from inference_plugin.rollouts import RolloutKey
from support.memory_cluster import MemoryCluster

if TYPE_CHECKING:
    from collections.abc import Callable

HASH = "rollouts-pod-template-hash"


def make(name: str, namespace: str = "llm", **labels: str) -> dict[str, Any]:
    found = {key.replace("_", "-"): value for key, value in labels.items()}
    return {"metadata": {"name": name, "namespace": namespace, "labels": found}}


def looked(look: Callable[[Footprint], object]) -> Footprint:
    seen = Footprint(MemoryCluster())
    look(seen)
    return seen


@pytest.mark.parametrize(
    ("look", "resource", "obj", "concerned"),
    [
        pytest.param(
            lambda view: view.get(HTTPROUTE, "llm", "chat"), HTTPROUTE, make("chat"), True, id="get"
        ),
        pytest.param(
            lambda view: view.get(HTTPROUTE, "llm", "chat"),
            HTTPROUTE,
            make("other"),
            False,
            id="another-object",
        ),
        pytest.param(
            lambda view: view.get(HTTPROUTE, "llm", "chat"),
            HTTPROUTE,
            make("chat", "prod"),
            False,
            id="another-namespace",
        ),
        pytest.param(
            lambda view: view.get(SERVICE, "llm", "chat"),
            INFERENCEPOOL,
            make("chat"),
            False,
            id="another-kind",
        ),
        pytest.param(
            lambda view: view.names(SERVICE, "llm"), SERVICE, make("new"), True, id="all-names"
        ),
        pytest.param(
            lambda view: list(view.pods("llm", {"app": "x", HASH: "h1"})),
            POD,
            make("p", app="x", rollouts_pod_template_hash="h1"),
            True,
            id="a-pod-that-is-selected",
        ),
        pytest.param(
            lambda view: list(view.pods("llm", {"app": "x", HASH: "h1"})),
            POD,
            make("p", app="x", rollouts_pod_template_hash="h2"),
            False,
            id="a-pod-of-another-revision",
        ),
        pytest.param(
            lambda view: list(view.pods("llm", {"app": "x"})),
            POD,
            make("p", app="x", rollouts_pod_template_hash="h2"),
            True,
            id="a-pod-of-any-revision",
        ),
        pytest.param(
            lambda view: list(view.pods("llm", {})), POD, make("p"), False, id="no-selector"
        ),
        pytest.param(
            lambda view: list(view.replica_sets("llm", "h1")),
            REPLICASET,
            make("r", rollouts_pod_template_hash="h1"),
            True,
            id="a-revision",
        ),
        pytest.param(
            lambda view: list(view.replica_sets("llm", "h1")),
            REPLICASET,
            make("r", rollouts_pod_template_hash="h2"),
            False,
            id="another-revision",
        ),
        pytest.param(
            lambda view: view.available("llm", "uid", "h1"),
            REPLICASET,
            make("r", rollouts_pod_template_hash="h1"),
            True,
            id="the-available-pods-of-a-revision",
        ),
        pytest.param(
            lambda view: list(view.replica_sets("llm")),
            REPLICASET,
            make("r", rollouts_pod_template_hash="h2"),
            True,
            id="all-revisions",
        ),
    ],
)
def test_a_change_concerns_who_looked_at_it(
    look: Callable[[Footprint], object], resource: Resource, obj: dict[str, Any], concerned: bool
) -> None:
    assert bool(looked(look).marks & marks_of(resource, obj)) is concerned


def test_an_empty_look_concerns_nothing() -> None:
    assert not Footprint(MemoryCluster()).marks


KEYS = [RolloutKey(namespace="llm", name=name) for name in "abc"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KEYS),
            st.one_of(st.none(), st.frozensets(st.sampled_from("uvwxyz"))),
        )
    )
)
def test_interests_are_those_of_the_last_look(
    looks: list[tuple[RolloutKey, frozenset[str] | None]],
) -> None:
    interests = Interests()
    last: dict[RolloutKey, frozenset[str]] = {}
    for key, marks in looks:
        if marks is None:
            interests.forget(key)
            last.pop(key, None)
        else:
            interests.note(key, marks)
            last[key] = marks
    for mark in "uvwxyz":
        assert interests.of([mark]) == {key for key, marks in last.items() if mark in marks}
    assert interests.of("uvwxyz") == {key for key, marks in last.items() if marks}
