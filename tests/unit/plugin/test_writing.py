"""Several objects written as one: all of them, or what was there before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from inference_common.errors import KubeError
from inference_common.kube import HTTPROUTE
from inference_plugin.decisions import Decision
from inference_plugin.patches import ObjectPatch, guarded, inverse, pointer
from inference_plugin.telemetry import Metrics
from inference_plugin.writing import Together, Writer
from support.memory_cluster import (
    NAMESPACE,
    MemoryCluster,
    apply_patch,
    make_route,
    pool_ref,
    weights_of,
)

if TYPE_CHECKING:
    from inference_plugin.patches import Write

REFUSED = KubeError(422, "Invalid", "a policy refuses it")


def weighing(*weights: int) -> list[Any]:
    """The operations that give the first rule's references these weights."""
    path = ("spec", "rules", 0, "backendRefs")
    return [
        {"op": "add", "path": pointer(*path, at, "weight"), "value": weight}
        for at, weight in enumerate(weights)
    ]


class Story:
    """Two routes, and what was told of the writes."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        for name in ("one", "two"):
            self.cluster.put(HTTPROUTE, make_route(name, [pool_ref("a", 100), pool_ref("b", 0)]))
        self.told: list[str] = []
        self.restored: list[str] = []
        tools: Any = type("Tools", (), {})()
        tools.cluster = self.cluster
        tools.metrics = Metrics(CollectorRegistry())
        self.together = Together(
            Writer(tools),
            cast("Any", self.cluster),
            told=lambda write, _: self.told.append(write.name),
            restored=lambda change, _: self.restored.append(change),
        )

    def raising(self, name: str) -> ObjectPatch:
        route = self.cluster.objects[HTTPROUTE, NAMESPACE, name]
        changes = weighing(90, 10)
        return ObjectPatch(
            resource=HTTPROUTE,
            namespace=NAMESPACE,
            name=name,
            operations=guarded(route, changes, '{"llm/chat":{}}'),
            summary=f"{name}: b to 10",
        )

    def decision(self, *names: str) -> Decision:
        return Decision(writes=tuple(self.raising(name) for name in names))

    def refuse(self, name: str, error: KubeError = REFUSED) -> None:
        def check(write: Write) -> None:
            if write.name == name:
                raise error

        self.cluster.before_write = check

    def weights(self) -> dict[str, int]:
        return {name: weights_of(self.cluster, name)["b"] for name in ("one", "two")}


@pytest.fixture
def story() -> Story:
    return Story()


async def test_all_are_written_in_order(story: Story) -> None:
    assert await story.together.carry_out(story.decision("one", "two"))
    assert story.told == ["one", "two"]
    assert story.weights() == {"one": 10, "two": 10}


async def test_first_one_is_taken_back_when_the_second_fails(story: Story) -> None:
    before = story.cluster.objects[HTTPROUTE, NAMESPACE, "one"]
    story.refuse("two")
    with pytest.raises(KubeError):
        await story.together.carry_out(story.decision("one", "two"))
    after = story.cluster.objects[HTTPROUTE, NAMESPACE, "one"]
    assert after["spec"] == before["spec"]
    assert story.restored == ["one: b to 10"]


async def test_write_of_an_earlier_round_is_taken_back_too(story: Story) -> None:
    """The second object conflicts, is planned anew, and is refused only then."""
    story.refuse("two", KubeError(409, "Conflict", "the object has been modified"))
    await story.together.carry_out(story.decision("one", "two"))
    assert story.weights() == {"one": 10, "two": 0}
    story.refuse("two")
    with pytest.raises(KubeError):
        await story.together.carry_out(story.decision("two"))
    assert story.weights() == {"one": 0, "two": 0}


async def test_status_that_the_gateway_wrote_meanwhile_does_not_keep_it(story: Story) -> None:
    story.refuse("two", KubeError(409, "Conflict", "the object has been modified"))
    await story.together.carry_out(story.decision("one", "two"))
    story.cluster.accept("one")
    story.refuse("two")
    with pytest.raises(KubeError):
        await story.together.carry_out(story.decision("two"))
    assert story.weights() == {"one": 0, "two": 0}


async def test_change_by_somebody_else_meanwhile_is_left_alone(story: Story) -> None:
    story.refuse("two", KubeError(409, "Conflict", "the object has been modified"))
    await story.together.carry_out(story.decision("one", "two"))

    def edit(route: Any) -> None:
        route["spec"]["rules"][0]["backendRefs"][1]["weight"] = 33

    story.cluster.change(HTTPROUTE, "one", edit)
    story.refuse("two")
    with pytest.raises(KubeError):
        await story.together.carry_out(story.decision("two"))
    assert story.weights() == {"one": 33, "two": 0}
    assert story.restored == []


@given(
    before=st.lists(st.integers(0, 100), min_size=2, max_size=2),
    after=st.lists(st.integers(0, 100), min_size=2, max_size=2),
    annotated=st.booleans(),
)
def test_inverse_of_a_patch_brings_back_what_it_changed(
    before: list[int], after: list[int], annotated: bool
) -> None:
    refs = [pool_ref("a", before[0]), pool_ref("b", before[1])]
    route = make_route("chat", refs)
    route["metadata"] |= {"namespace": NAMESPACE, "uid": "u", "resourceVersion": "1"}
    if annotated:
        route["metadata"]["annotations"] = {"theirs": "x"}
    changes = weighing(*after)
    patch = ObjectPatch(
        resource=HTTPROUTE,
        namespace=NAMESPACE,
        name="chat",
        operations=guarded(route, changes, '{"llm/chat":{}}'),
        summary="",
    )
    now = apply_patch(route, patch.operations)
    undo = inverse(patch, route, now)
    assert undo is not None
    found = apply_patch(now, undo.operations)
    assert found["spec"] == route["spec"]
    theirs = route["metadata"].get("annotations") or {}
    assert (found["metadata"].get("annotations") or {}) == theirs
