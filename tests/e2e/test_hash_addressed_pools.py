"""A Rollout that owns its pods, with two pools that the plugin aims: no traffic, every command.

The expected calls and states are those of the walk through the real controller: initial deploy,
steps, promote, promote --full, abort, undo.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from inference_common.kube import HTTPROUTE, INFERENCEPOOL, INFERENCEPOOL_X, Resource
from support import manifests as m
from support.deployments import APP, POOLS, hash_addressed
from support.scenario import TIMEOUT_S, weights

if TYPE_CHECKING:
    from support.cluster.client import AuditEvent
    from support.scenario import Scenario


@pytest.mark.parametrize("resource", [INFERENCEPOOL, INFERENCEPOOL_X], ids=["v1", "v1alpha2"])
async def test_initial_deploy_aims_the_first_pool_and_gives_it_everything(
    scenario: Scenario, resource: Resource
) -> None:
    await hash_addressed(scenario, resource=resource)
    await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})
    assert await scenario.pool_hash("chat-a", resource) == (await scenario.hashes("chat"))["stable"]


async def test_first_deploy_with_both_weights_absent_ends_at_all_and_nothing(
    scenario: Scenario,
) -> None:
    await hash_addressed(scenario, weights=(None, None))
    await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})


async def test_steps_and_promote_end_with_the_second_pool_at_everything(
    scenario: Scenario,
) -> None:
    await hash_addressed(scenario)
    old = (await scenario.hashes("chat"))["stable"]
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    await scenario.until_weights("chat", {"chat-a": 90, "chat-b": 10})
    new = (await scenario.hashes("chat"))["current"]
    assert await scenario.pool_hash("chat-a") == old
    assert await scenario.pool_hash("chat-b") == new
    await scenario.argo("promote", "chat")
    await scenario.until_paused("chat", 50)
    await scenario.until_weights("chat", {"chat-a": 50, "chat-b": 50})
    await scenario.argo("promote", "chat")
    await scenario.until_healthy("chat")
    await scenario.until_weights("chat", {"chat-a": 0, "chat-b": 100})
    assert await scenario.pool_hash("chat-b") == new


async def test_promote_full_at_ten_per_cent_moves_everything(scenario: Scenario) -> None:
    await hash_addressed(scenario, replicas=2)
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    await scenario.argo("promote", "chat", "--full")
    await scenario.until_healthy("chat")
    await scenario.until_weights("chat", {"chat-a": 0, "chat-b": 100})
    assert await scenario.pool_hash("chat-b") == (await scenario.hashes("chat"))["stable"]


@pytest.mark.parametrize("weight", [10, 50])
async def test_abort_returns_everything_to_stable(scenario: Scenario, weight: int) -> None:
    await hash_addressed(scenario)
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    if weight == 50:
        await scenario.argo("promote", "chat")
        await scenario.until_paused("chat", 50)
    await scenario.argo("abort", "chat")
    await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})
    await scenario.until_aborted("chat")
    assert await scenario.pool_hash("chat-a") == (await scenario.hashes("chat"))["stable"]


async def test_abort_does_not_wait_for_an_unready_stable_pod(scenario: Scenario) -> None:
    """The controller skips SetWeight while stable lacks a pod, on abort too (measured)."""
    await hash_addressed(scenario, replicas=4)
    stable = (await scenario.hashes("chat"))["stable"]
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    pod = (await scenario.pods_of(stable))[0]["metadata"]["name"]
    await scenario.set_ready(pod, ready=False)
    await scenario.argo("abort", "chat")
    await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})


async def test_undo_goes_back_through_the_steps_to_the_old_version(scenario: Scenario) -> None:
    await hash_addressed(scenario)
    first = (await scenario.hashes("chat"))["stable"]
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    await scenario.argo("promote", "chat", "--full")
    await scenario.until_healthy("chat")
    await scenario.until_weights("chat", {"chat-a": 0, "chat-b": 100})
    await scenario.argo("undo", "chat")
    await scenario.until_paused("chat", 10)
    await scenario.until_weights("chat", {"chat-a": 10, "chat-b": 90})
    assert (await scenario.hashes("chat"))["current"] == first
    assert await scenario.pool_hash("chat-a") == first
    await scenario.argo("promote", "chat", "--full")
    await scenario.until_healthy("chat")
    await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})


async def test_unchanged_weight_writes_nothing(scenario: Scenario) -> None:
    await hash_addressed(scenario)
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    before = await scenario.until_accepted("chat")
    pools = [await scenario.get(INFERENCEPOOL, name) for name in POOLS]
    async with asyncio.timeout(TIMEOUT_S):
        # The Events of the step may still be on their way.
        while await asked_meanwhile(scenario):
            pass
    after = await scenario.get(HTTPROUTE, "chat")
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    for old in pools:
        new = await scenario.get(INFERENCEPOOL, old["metadata"]["name"])
        assert new["metadata"]["generation"] == old["metadata"]["generation"]


async def asked_meanwhile(scenario: Scenario) -> list[AuditEvent]:
    """What the plugin asks of the API server while the controller calls it three times."""
    position = scenario.cluster.audit_position()
    for _ in range(3):
        await scenario.reconcile("chat")
    return [
        event
        for event in scenario.cluster.audit("plugin", since=position)
        if event.namespace == scenario.namespace and event.verb != "watch"
    ]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        pytest.param(
            {"httpRoute": "chatt", "inferencePools": ["chat-a", "chat-b"]},
            "chatt",
            id="route-that-does-not-exist",
        ),
        pytest.param(
            {"httpRoute": "chat", "inferencePools": ["chat-a", "chat-c"]},
            "chat-c",
            id="pool-that-the-route-does-not-name",
        ),
        pytest.param(
            {"httpRoute": "chat", "inferencePols": ["chat-a", "chat-b"]},
            "inferencePols",
            id="misspelt-key",
        ),
        pytest.param(
            {"httpRoute": 7, "inferencePools": ["chat-a", "chat-b"]},
            "httpRoute",
            id="wrong-type",
        ),
    ],
)
async def test_wrong_configuration_is_an_event_that_names_it_and_writes_nothing(
    scenario: Scenario, config: dict[str, object], says: str
) -> None:
    await scenario.apply(
        m.gateway(),
        m.deployment("picker", m.noop(), labels={"app": "picker"}),
        m.service("picker", {"app": "picker"}, m.PICKER_PORT),
        m.pool("chat-a", APP),
        m.pool("chat-b", APP),
        m.route("chat", m.pool_ref("chat-a"), m.pool_ref("chat-b")),
    )
    before = await scenario.until_accepted("chat")
    await scenario.apply(m.rollout("chat", m.pod_template(m.noop(), labels=APP), config))
    await scenario.until_event("TrafficRoutingError", says)
    after = await scenario.get(HTTPROUTE, "chat")
    assert weights(after) == weights(before)
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    for name in ("chat-a", "chat-b"):
        assert await scenario.pool_hash(name) is None


@pytest.mark.alone
async def test_plugin_server_killed_mid_canary_costs_no_weight(scenario: Scenario) -> None:
    await hash_addressed(scenario)
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    scenario.cluster.signal("plugin", signal.SIGKILL)
    await scenario.until_weights("chat", {"chat-a": 90, "chat-b": 10})
    await scenario.argo("promote", "chat")
    await scenario.until_paused("chat", 50)
    await scenario.until_weights("chat", {"chat-a": 50, "chat-b": 50})
