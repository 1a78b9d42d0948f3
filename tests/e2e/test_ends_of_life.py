"""The controller calls nothing when a Rollout is deleted, or is no longer routed, mid-canary.

The plugin moves the traffic to stable by itself, and leaves nothing of its own behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inference_common.kube import HTTPROUTE, INFERENCEPOOL, ROLLOUT
from inference_common.names import COMMANDED_ANNOTATION, HASH_LABEL, PLUGIN_NAME
from inference_common.pools import selector_of
from support import manifests as m
from support.deployments import APP, hash_addressed, lora_release, release_only
from support.scenario import targets

if TYPE_CHECKING:
    from support.scenario import Object, Scenario

ROUTING = "/spec/strategy/canary/trafficRouting"


def is_unmarked(obj: Object | None) -> bool:
    annotations = (obj or {}).get("metadata", {}).get("annotations") or {}
    return obj is not None and COMMANDED_ANNOTATION not in annotations


async def until_released(scenario: Scenario, route: str, *pools: str) -> None:
    await scenario.until(HTTPROUTE, route, is_unmarked, what="no annotation of the plugin")
    for name in pools:
        await scenario.until(
            INFERENCEPOOL,
            name,
            lambda pool: pool is not None and HASH_LABEL not in selector_of(pool),
            what="a selector without the pod-template-hash",
        )


async def configure(scenario: Scenario, **keys: object) -> None:
    path = f"{ROUTING}/plugins/{PLUGIN_NAME.replace('/', '~1')}"
    operations = [
        {"op": "add", "path": f"{path}/{key}", "value": value} for key, value in keys.items()
    ]
    await scenario.kube.patch(ROLLOUT, "chat", operations, scenario.namespace)


@pytest.fixture
async def at_ten(scenario: Scenario) -> Scenario:
    """Rollout ``chat`` in the middle of a canary."""
    await hash_addressed(scenario)
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    await scenario.until_weights("chat", {"chat-a": 90, "chat-b": 10})
    return scenario


async def test_rollout_deleted_mid_canary_leaves_everything_on_stable(at_ten: Scenario) -> None:
    await at_ten.kube.delete(ROLLOUT, "chat", at_ten.namespace)
    await at_ten.until_weights("chat", {"chat-a": 100, "chat-b": 0})
    await until_released(at_ten, "chat", "chat-a", "chat-b")


async def test_traffic_routing_removed_mid_canary_leaves_everything_on_stable(
    at_ten: Scenario,
) -> None:
    """The pools go back to all pods: from here on Argo's replica counts decide."""
    await at_ten.kube.patch(ROLLOUT, "chat", [{"op": "remove", "path": ROUTING}], at_ten.namespace)
    await at_ten.until_weights("chat", {"chat-a": 100, "chat-b": 0})
    await until_released(at_ten, "chat", "chat-a", "chat-b")


async def test_weights_stay_at_the_end_if_so_configured(scenario: Scenario) -> None:
    await hash_addressed(scenario, config={"onEnd": "keep"})
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    await scenario.kube.delete(ROLLOUT, "chat", scenario.namespace)
    await until_released(scenario, "chat", "chat-a", "chat-b")
    await scenario.until_weights("chat", {"chat-a": 90, "chat-b": 10})


async def test_rollout_deleted_after_a_promotion_leaves_the_promoted_pool_in_use(
    scenario: Scenario,
) -> None:
    await hash_addressed(scenario, canary_steps=m.steps(50))
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 50)
    await scenario.argo("promote", "chat")
    await scenario.until_healthy("chat")
    await scenario.until_weights("chat", {"chat-a": 0, "chat-b": 100})
    await scenario.kube.delete(ROLLOUT, "chat", scenario.namespace)
    await until_released(scenario, "chat", "chat-a", "chat-b")
    await scenario.until_weights("chat", {"chat-a": 0, "chat-b": 100})


async def test_route_renamed_in_the_configuration_releases_the_old_one(at_ten: Scenario) -> None:
    refs = (m.pool_ref("chat-a", 100), m.pool_ref("chat-b", 0))
    await at_ten.apply(m.route("chat-new", *refs))
    await at_ten.until_accepted("chat-new")
    await configure(at_ten, httpRoutes=[{"name": "chat-new"}])
    await at_ten.until_weights("chat", {"chat-a": 100, "chat-b": 0})
    await until_released(at_ten, "chat")
    await at_ten.until_weights("chat-new", {"chat-a": 90, "chat-b": 10})


async def test_pool_replaced_in_the_configuration_is_drained_and_released(
    at_ten: Scenario,
) -> None:
    route = await at_ten.get(HTTPROUTE, "chat")
    refs = [*route["spec"]["rules"][0]["backendRefs"], m.pool_ref("chat-c", 0)]
    path = "/spec/rules/0/backendRefs"
    await at_ten.apply(m.pool("chat-c", APP))
    await at_ten.kube.patch(
        HTTPROUTE, "chat", [{"op": "replace", "path": path, "value": refs}], at_ten.namespace
    )
    await configure(at_ten, inferencePools=["chat-a", "chat-c"])
    await at_ten.until_weights("chat", {"chat-a": 90, "chat-b": 0, "chat-c": 10})
    await at_ten.until(
        INFERENCEPOOL,
        "chat-b",
        lambda pool: pool is not None and HASH_LABEL not in selector_of(pool),
        what="a selector without the pod-template-hash",
    )


async def test_release_deleted_mid_canary_leaves_the_stable_adapter_alone(
    scenario: Scenario,
) -> None:
    await release_only(scenario, "v1")
    await scenario.revise("travel-helper", lora_release("v2", noop=True))
    await scenario.until_paused("travel-helper", 10)
    await scenario.until_targets("loramodel", {"v1": 90, "v2": 10})
    await scenario.kube.delete(ROLLOUT, "travel-helper", scenario.namespace)
    model = await scenario.until_targets("loramodel", {"v1": 100})
    assert targets(model) == {"v1": 100}
