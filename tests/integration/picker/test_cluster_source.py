"""The pool as a real API server describes it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from inference_common.kube import (
    INFERENCEMODEL,
    INFERENCEMODELREWRITE,
    INFERENCEMODELREWRITE_X,
    INFERENCEPOOL_X,
    POD,
    PatchKind,
)
from inference_picker.cluster import ClusterSource
from inference_picker.namespaces import NamespaceWatch
from inference_picker.objectives import INFERENCEOBJECTIVE, INFERENCEOBJECTIVE_X
from inference_picker.splits import Target
from support import manifests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from inference_picker.pool import PoolSnapshot
    from support.scenario import Scenario

READY = "local.inference-rollouts.io/ready"


def make_pod(name: str, labels: dict[str, str], *, ready: bool = True) -> dict[str, Any]:
    metadata = {"name": name, "labels": labels, "annotations": {READY: str(ready).lower()}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [manifests.noop()], "terminationGracePeriodSeconds": 0},
    }


@contextlib.asynccontextmanager
async def watching(scenario: Scenario) -> AsyncIterator[ClusterSource]:
    async with (
        NamespaceWatch(scenario.kube, scenario.namespace) as watch,
        ClusterSource(watch, name="pool", group=INFERENCEPOOL_X.group) as source,
    ):
        await source.synced()
        yield source


async def until(source: ClusterSource, condition: Callable[[PoolSnapshot], bool]) -> PoolSnapshot:
    async with asyncio.timeout(120):
        while not condition(source.snapshot()):  # noqa: ASYNC110 - the source has no signal
            await asyncio.sleep(0.02)
    return source.snapshot()


def pods_of(pool: PoolSnapshot) -> list[str]:
    return [each.pod for each in pool.endpoints]


def is_running(pod: dict[str, Any] | None) -> bool:
    return pod is not None and pod.get("status", {}).get("phase") == "Running"


async def annotate(scenario: Scenario, pod: str, *, ready: bool) -> None:
    change = {"metadata": {"annotations": {READY: str(ready).lower()}}}
    await scenario.kube.patch(POD, pod, change, scenario.namespace, kind=PatchKind.MERGE)


async def test_endpoints_follow_pods_and_selector(scenario: Scenario) -> None:
    async with watching(scenario) as source:
        early = source.is_ready
        assert not early
        pool = manifests.pool("pool", {"app": "m", "color": "blue"}, resource=INFERENCEPOOL_X)
        await scenario.apply(
            pool,
            make_pod("a", {"app": "m", "color": "blue", "rollouts-pod-template-hash": "h1"}),
            make_pod("b", {"app": "m", "color": "blue"}, ready=False),
            make_pod("c", {"app": "m", "color": "green"}),
        )
        found = await until(source, lambda now: pods_of(now) == ["a"])
        assert source.is_ready
        assert found.endpoints[0].version == "h1"
        assert found.endpoints[0].address.endswith(":8000")

        for name in "bc":
            await scenario.until(POD, name, is_running)
        await annotate(scenario, "b", ready=True)
        await until(source, lambda now: pods_of(now) == ["a", "b"])
        await annotate(scenario, "a", ready=False)
        await until(source, lambda now: pods_of(now) == ["b"])

        # A rollout re-aims the pool like this.
        aim = {"spec": {"selector": {"color": "green"}}}
        await scenario.kube.patch(
            INFERENCEPOOL_X, "pool", aim, scenario.namespace, kind=PatchKind.MERGE
        )
        await until(source, lambda now: pods_of(now) == ["c"])
        await scenario.kube.delete(POD, "c", scenario.namespace)
        await until(source, lambda now: pods_of(now) == [])
        await scenario.kube.delete(INFERENCEPOOL_X, "pool", scenario.namespace)
        async with asyncio.timeout(120):
            while source.is_ready:  # noqa: ASYNC110 - the source has no signal
                await asyncio.sleep(0.02)


async def test_splits_follow_the_inference_model(scenario: Scenario) -> None:
    await scenario.apply(
        manifests.pool("pool", {"app": "m"}, resource=INFERENCEPOOL_X),
        manifests.inference_model("chat", "chat", "pool", v1=100),
    )
    async with watching(scenario) as source:
        assert source.snapshot().splits["chat"].targets == (Target(name="v1", weight=100),)

        targets = [{"name": "v1", "weight": 90}, {"name": "v2", "weight": 10}]
        await scenario.kube.patch(
            INFERENCEMODEL,
            "chat",
            {"spec": {"targetModels": targets}},
            scenario.namespace,
            kind=PatchKind.MERGE,
        )
        found = await until(source, lambda now: len(now.splits["chat"].targets) == 2)
        assert found.splits["chat"].targets[1] == Target(name="v2", weight=10)
        assert {"chat", "v1", "v2"} <= found.names

        await scenario.kube.delete(INFERENCEMODEL, "chat", scenario.namespace)
        await until(source, lambda now: not now.splits)


async def test_splits_follow_the_rewrite_of_the_newer_group(scenario: Scenario) -> None:
    """Both groups are installed here: the older one is ignored."""
    await scenario.apply(
        manifests.pool("pool", {"app": "m"}, resource=INFERENCEPOOL_X),
        manifests.model_rewrite("chat", "chat", "pool", {"v1": None}),
        manifests.model_rewrite(
            "talk", "talk", "pool", {"v1": None}, resource=INFERENCEMODELREWRITE_X
        ),
    )
    async with watching(scenario) as source:
        assert source.snapshot().splits["chat"].targets == (Target(name="v1", weight=1),)
        assert "talk" not in source.snapshot().splits

        change = manifests.model_rewrite("chat", "chat", "pool", {"v1": 90, "v2": 10})
        await scenario.kube.patch(
            INFERENCEMODELREWRITE, "chat", change, scenario.namespace, kind=PatchKind.MERGE
        )
        found = await until(source, lambda now: len(now.splits["chat"].targets) == 2)
        assert found.splits["chat"].targets[1] == Target(name="v2", weight=10)

        await scenario.kube.delete(INFERENCEMODELREWRITE, "chat", scenario.namespace)
        await until(source, lambda now: not now.splits)


async def test_priorities_follow_the_objectives_of_both_groups(scenario: Scenario) -> None:
    def objective(group: str, name: str, priority: int) -> dict[str, Any]:
        return {
            "apiVersion": f"{group}/v1alpha2",
            "kind": "InferenceObjective",
            "metadata": {"name": name},
            "spec": {
                "priority": priority,
                "poolRef": {"name": "pool", "group": INFERENCEPOOL_X.group},
            },
        }

    await scenario.apply(manifests.pool("pool", {"app": "m"}, resource=INFERENCEPOOL_X))
    for kind, name, priority in (
        (INFERENCEOBJECTIVE, "chat", 5),
        (INFERENCEOBJECTIVE_X, "batch", -1),
    ):
        body = objective(kind.group, name, priority)
        await scenario.kube.create(kind, body, scenario.namespace)
    async with watching(scenario) as source:
        await until(source, lambda now: now.objectives == {"chat": 5, "batch": -1})
        assert source.staleness_s() is None
        assert source.detail() == f"0 endpoints in {scenario.namespace}/pool"

        await scenario.kube.delete(INFERENCEOBJECTIVE, "chat", scenario.namespace)
        await until(source, lambda now: now.objectives == {"batch": -1})
