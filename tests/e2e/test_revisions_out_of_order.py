"""Revisions that come when the controller is busy with another one, or go back.

The expected calls are those recorded from the real controller (plugin-walk): V3 while V2 has
traffic, an older revision that still runs, retry, undo inside rollbackWindow, dynamicStableScale.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from inference_common.kube import REPLICASET, ROLLOUT
from support import manifests as m
from support.deployments import hash_addressed
from support.history import History

if TYPE_CHECKING:
    from support.scenario import Scenario


async def to_fifty(scenario: Scenario, version: str) -> None:
    await scenario.revise("chat", version)
    await scenario.until_paused("chat", 10)
    await scenario.argo("promote", "chat")
    await scenario.until_paused("chat", 50)


async def promoted(scenario: Scenario, version: str) -> None:
    await scenario.revise("chat", version)
    await scenario.until_paused("chat", 10)
    await scenario.argo("promote", "chat", "--full")
    await scenario.until_healthy("chat")


async def test_retry_after_an_abort_starts_the_steps_again(scenario: Scenario) -> None:
    await hash_addressed(scenario)
    async with History(scenario) as history:
        await to_fifty(scenario, "2")
        canary = (await scenario.hashes("chat"))["current"]
        await scenario.argo("abort", "chat")
        await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})
        await scenario.until_aborted("chat")
        # The canary's pods go 5 s after the abort: the pool must not stay aimed at nothing.
        await scenario.until_no_pods(canary)
        await scenario.argo("retry", "rollout", "chat")
        await scenario.until_paused("chat", 10)
        await scenario.until_weights("chat", {"chat-a": 90, "chat-b": 10})
        await scenario.argo("promote", "chat", "--full")
        await scenario.until_healthy("chat")
        await scenario.until_weights("chat", {"chat-a": 0, "chat-b": 100})
    assert history.unanswered() == []


async def test_v3_while_v2_is_at_fifty_never_gives_weight_to_an_empty_pool(
    scenario: Scenario,
) -> None:
    await hash_addressed(scenario, replicas=2)
    async with History(scenario) as history:
        await to_fifty(scenario, "2")
        await scenario.revise("chat", "3")
        await scenario.until_paused("chat", 10)
        await scenario.until_weights("chat", {"chat-a": 90, "chat-b": 10})
        hashes = await scenario.hashes("chat")
        assert await scenario.pool_hash("chat-a") == hashes["stable"]
        assert await scenario.pool_hash("chat-b") == hashes["current"]
    assert history.unanswered() == []
    # V3 starts from nothing, whatever V2 had.
    assert {"chat-a": 100, "chat-b": 0} in history.weights("chat")[2:]


async def test_v3_is_an_older_revision_still_running_while_v2_is_at_fifty(
    scenario: Scenario,
) -> None:
    """The controller calls UpdateHash first here: an error from it would be a deadlock at 50."""
    await hash_addressed(scenario, scaleDownDelaySeconds=600)
    await promoted(scenario, "2")
    async with History(scenario) as history:
        await to_fifty(scenario, "3")
        # Back to the template of the first revision, whose pods still run.
        await scenario.revise("chat", "1")
        await scenario.until_paused("chat", 10)
        hashes = await scenario.hashes("chat")
        await scenario.until_weights("chat", {"chat-a": 10, "chat-b": 90})
        assert await scenario.pool_hash("chat-b") == hashes["stable"]
        assert await scenario.pool_hash("chat-a") == hashes["current"]
    assert history.unanswered() == []


async def test_undo_inside_the_rollback_window_skips_the_steps(scenario: Scenario) -> None:
    """The first calls are UpdateHash(old, new) and SetWeight(100)."""
    await hash_addressed(scenario)
    await scenario.kube.patch(
        ROLLOUT,
        "chat",
        [{"op": "add", "path": "/spec/rollbackWindow", "value": {"revisions": 3}}],
        scenario.namespace,
    )
    first = (await scenario.hashes("chat"))["stable"]
    created = (await scenario.get(REPLICASET, f"chat-{first}"))["metadata"]["creationTimestamp"]
    # The controller knows a rollback by its older ReplicaSet, and a creation only to the second.
    while datetime.now(UTC) < datetime.fromisoformat(created) + timedelta(seconds=1):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await promoted(scenario, "2")
    await scenario.until_no_pods(first)
    async with History(scenario) as history:
        await scenario.argo("undo", "chat")
        await scenario.until(
            ROLLOUT,
            "chat",
            lambda obj: obj is not None and obj["status"].get("stableRS") == first,
            what="the first revision stable again",
        )
        await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})
    assert history.unanswered() == []
    assert await scenario.pool_hash("chat-a") == first


async def test_dynamic_stable_scale_abort_brings_traffic_back_with_the_pods(
    scenario: Scenario,
) -> None:
    await hash_addressed(scenario, replicas=2, dynamicStableScale=True, scale_down_delay=False)
    async with History(scenario) as history:
        await to_fifty(scenario, "2")
        await scenario.argo("abort", "chat")
        await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})
        await scenario.until_no_pods((await scenario.hashes("chat"))["current"])
    assert history.unanswered() == []


async def test_dynamic_stable_scale_undo_goes_through_the_steps(scenario: Scenario) -> None:
    await hash_addressed(scenario, replicas=2, dynamicStableScale=True, scale_down_delay=False)
    await promoted(scenario, "2")
    async with History(scenario) as history:
        await scenario.argo("undo", "chat")
        await scenario.until_paused("chat", 10)
        await scenario.until_canary_share("chat", 10)
        await scenario.argo("promote", "chat", "--full")
        await scenario.until_healthy("chat")
        await scenario.until_canary_share("chat", 0)
    assert history.unanswered() == []


async def test_steps_that_fall_keep_pods_until_their_weight_is_gone(scenario: Scenario) -> None:
    """Argo scales the canary down for the lower weight before it asks for that weight."""
    await hash_addressed(
        scenario,
        replicas=2,
        canary_steps=[*m.steps(50), *m.steps(0), *m.steps(50)],
    )
    async with History(scenario) as history:
        await scenario.revise("chat", "2")
        await scenario.until_paused("chat", 50)
        await scenario.argo("promote", "chat")
        await scenario.until_paused("chat", 0)
        await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})
        await scenario.argo("promote", "chat")
        await scenario.until_paused("chat", 50)
        await scenario.until_canary_share("chat", 50)
    assert history.unanswered() == []
