"""Pools of pods that other operators run, each shifted by a release Rollout with the prober.

No operator is installed: its pods and pools are made as it makes them (support.shapes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference_common.kube import Resource
from support import manifests as m
from support.shapes import LWS, leader_worker_set, leaders, llm_inference_service

if TYPE_CHECKING:
    from support.scenario import Scenario

STATEFULSET = Resource("apps", "v1", "statefulsets", "StatefulSet")


def release(pool: str, identity: str) -> m.Object:
    """A revision that stands for a pool of these contents; its pod probes them."""
    extra = ("--identity", identity, "--load-grace-s", "1")
    return m.pod_template(
        m.prober(pool, "mymodel", "release", *extra),
        labels={"app": "release"},
        annotations=m.destination(pool, identity),
        service_account="prober",
    )


async def shift(scenario: Scenario, first: tuple[str, str], second: tuple[str, str]) -> None:
    """Canary, promotion step by step, and undo, between two pools given as (name, identity)."""
    route = m.route("chat", m.pool_ref(first[0], 100), m.pool_ref(second[0], 0))
    await scenario.apply(m.gateway(), *m.prober_rights(), route)
    config = {"httpRoute": "chat", "destinationKind": "InferencePool"}
    await scenario.apply(m.rollout("release", release(*first), config))
    await scenario.until_healthy("release", timeout_s=180)
    await scenario.until_weights("chat", {first[0]: 100, second[0]: 0})
    await scenario.revise("release", release(*second))
    await scenario.until_paused("release", 10, timeout_s=180)
    await scenario.until_weights("chat", {first[0]: 90, second[0]: 10})
    await scenario.argo("promote", "release")
    await scenario.until_paused("release", 50)
    await scenario.argo("promote", "release")
    await scenario.until_healthy("release")
    await scenario.until_weights("chat", {first[0]: 0, second[0]: 100})
    await scenario.argo("undo", "release")
    await scenario.until_paused("release", 10, timeout_s=180)
    await scenario.until_weights("chat", {first[0]: 10, second[0]: 90})
    await scenario.argo("promote", "release", "--full")
    await scenario.until_healthy("release")
    await scenario.until_weights("chat", {first[0]: 100, second[0]: 0})


async def test_leader_worker_sets_are_shifted_by_their_leaders(scenario: Scenario) -> None:
    for version, revision in (("qwen", "5f6b"), ("deepseek", "77c9")):
        await scenario.apply(
            *leader_worker_set(version, m.simulated_vllm(version), revision), leaders(version)
        )
    await scenario.apply(
        m.deployment("picker", m.noop(), labels={"app": "picker"}),
        m.service("picker", {"app": "picker"}, m.PICKER_PORT),
    )
    await scenario.until_available("picker")
    for name in ("qwen", "qwen-0", "deepseek", "deepseek-0"):
        await scenario.until(
            STATEFULSET,
            name,
            lambda found: found is not None and found["status"].get("readyReplicas") == 1,
            what="a ready pod",
        )
    label = f"label:{LWS}/template-revision-hash"
    # The workers answer no request: a pool with one of them would never be ready for the prober.
    await shift(scenario, ("qwen", f"{label}=5f6b"), ("deepseek", f"{label}=77c9"))


async def test_llm_inference_services_of_kserve_are_shifted(scenario: Scenario) -> None:
    for name in ("chat-v1", "chat-v2"):
        await scenario.apply(*llm_inference_service(name, m.simulated_vllm(name)))
    for name in ("chat-v1", "chat-v2"):
        await scenario.until_available(f"{name}-kserve")
        await scenario.until_available(f"{name}-kserve-router-scheduler")
    identity = "label:app.kubernetes.io/name"
    await shift(
        scenario,
        ("chat-v1-inference-pool", f"{identity}=chat-v1"),
        ("chat-v2-inference-pool", f"{identity}=chat-v2"),
    )
