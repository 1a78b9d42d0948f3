"""Rollouts without a pod template of their own: it comes from a Deployment or a PodTemplate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from inference_common.kube import DEPLOYMENT, INFERENCEPOOL, PatchKind, Resource
from inference_common.pools import hash_of
from support import manifests as m
from support.cluster.client import CommandError
from support.deployments import APP, POOLS
from support.shapes import from_workload, workload

if TYPE_CHECKING:
    from support.scenario import Scenario

PODTEMPLATE: Final = Resource("", "v1", "podtemplates", "PodTemplate")
KINDS: Final = {"Deployment": DEPLOYMENT, "PodTemplate": PODTEMPLATE}


async def change(scenario: Scenario, kind: str, name: str, template: m.Object) -> None:
    """Put another template into the referenced object, as somebody who applies a manifest."""
    patch = {"template": template} if kind == "PodTemplate" else {"spec": {"template": template}}
    await scenario.kube.patch(
        KINDS[kind], name, patch, scenario.namespace, kind=PatchKind.MERGE, field_manager="scenario"
    )


async def around(scenario: Scenario, *pools: str) -> None:
    """Gateway, picker, pools and route of hash-addressed Rollout ``chat`` or of named pools."""
    own = pools == POOLS
    await scenario.apply(
        m.gateway(),
        m.deployment("picker", m.noop(), labels={"app": "picker"}),
        m.service("picker", {"app": "picker"}, m.PICKER_PORT),
        *[m.pool(name, APP if own else {"app": name}) for name in pools],
        *[] if own else [m.deployment(name, m.noop(), labels={"app": name}) for name in pools],
        m.route("chat", *[m.pool_ref(name, 0 if at else 100) for at, name in enumerate(pools)]),
    )
    for name in ("picker", *(() if own else pools)):
        await scenario.until_available(name)


@pytest.mark.parametrize(
    ("scale_down", "left"),
    [
        pytest.param("never", 1, id="never"),
        pytest.param("onsuccess", 0, id="onsuccess"),
        pytest.param("progressively", 0, id="progressively"),
    ],
)
async def test_a_deployment_is_taken_over_and_its_template_rolled_out(
    scenario: Scenario, scale_down: str, left: int
) -> None:
    await around(scenario, *POOLS)
    template = m.pod_template(m.noop(), labels=APP)
    await scenario.apply(workload("Deployment", "chat", template))
    await scenario.until_available("chat")
    config = {"httpRoute": "chat", "inferencePools": list(POOLS)}
    rollout = m.rollout("chat", template, config)
    await scenario.apply(from_workload(rollout, "Deployment", scale_down=scale_down))
    await scenario.until_healthy("chat")
    first = (await scenario.hashes("chat"))["stable"]
    # The pool held the Deployment's pods too: aimed at the Rollout's, it holds those alone.
    await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})
    await scenario.until(
        INFERENCEPOOL,
        "chat-a",
        lambda pool: pool is not None and hash_of(pool) == first,
        what=f"aimed at {first}",
    )
    await scenario.until(
        DEPLOYMENT,
        "chat",
        lambda found: found is not None and found["spec"]["replicas"] == left,
        what=f"{left} replicas",
    )

    second = m.pod_template(m.noop(version="2"), labels=APP)
    await change(scenario, "Deployment", "chat", second)
    await scenario.until_paused("chat", 10)
    await scenario.until_weights("chat", {"chat-a": 90, "chat-b": 10})
    canary = (await scenario.hashes("chat"))["current"]
    assert await scenario.pool_hash("chat-b") == canary != first
    await scenario.argo("promote", "chat", "--full")
    await scenario.until_healthy("chat")
    await scenario.until_weights("chat", {"chat-a": 0, "chat-b": 100})

    # Undo writes the old template back into the Deployment.
    await scenario.argo("undo", "chat")
    await scenario.until_paused("chat", 10)
    await scenario.until_weights("chat", {"chat-a": 10, "chat-b": 90})
    assert await scenario.pool_hash("chat-a") == first
    assert await scenario.pool_hash("chat-b") == canary


@pytest.mark.parametrize("kind", ["Deployment", "PodTemplate"])
async def test_the_destination_is_read_from_the_referenced_template(
    scenario: Scenario, kind: str
) -> None:
    await around(scenario, "pool-1", "pool-2")

    def template(pool: str) -> m.Object:
        labels = {"app": "release"}
        return m.pod_template(m.noop(version=pool), labels=labels, annotations=m.destination(pool))

    config = {"httpRoute": "chat", "destinationKind": "InferencePool"}
    rollout = m.rollout("release", template("pool-1"), config)
    scale_down = "onsuccess" if kind == "Deployment" else None
    await scenario.apply(
        workload(kind, "release", template("pool-1")),
        from_workload(rollout, kind, scale_down=scale_down),
    )
    await scenario.until_healthy("release")
    await scenario.until_weights("chat", {"pool-1": 100, "pool-2": 0})

    await change(scenario, kind, "release", template("pool-2"))
    await scenario.until_paused("release", 10)
    await scenario.until_weights("chat", {"pool-1": 90, "pool-2": 10})
    await scenario.argo("promote", "release", "--full")
    await scenario.until_healthy("release")
    await scenario.until_weights("chat", {"pool-1": 0, "pool-2": 100})

    if kind == "Deployment":
        await scenario.argo("undo", "release")
    else:
        # argo-rollouts v1.10.2 patches /spec/template, which a PodTemplate does not have
        # (pkg/kubectl-argo-rollouts/cmd/undo): the old template is applied again instead.
        with pytest.raises(CommandError, match="failed restoring revision"):
            await scenario.argo("undo", "release")
        await change(scenario, kind, "release", template("pool-1"))
    await scenario.until_paused("release", 10)
    await scenario.until_weights("chat", {"pool-1": 10, "pool-2": 90})
    await scenario.argo("promote", "release", "--full")
    await scenario.until_healthy("release")
    await scenario.until_weights("chat", {"pool-1": 100, "pool-2": 0})
