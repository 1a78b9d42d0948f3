"""Destinations that can't take traffic: each one a clear Event, and nothing written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from inference_common.kube import HTTPROUTE, INFERENCEPOOL
from inference_common.names import DESTINATION_ANNOTATION
from support import manifests as m
from support.deployments import (
    APP,
    foreign,
    foreign_deployment,
    foreign_release,
    hash_addressed,
)

if TYPE_CHECKING:
    from support.scenario import Object, Scenario


async def test_new_revision_that_no_pool_selects_gets_no_weight(scenario: Scenario) -> None:
    """An empty pool: the canary's pods are ready, but the pool's selector asks for more."""
    await hash_addressed(scenario)
    selector = APP | {"tier": "gpu"}
    path = "/spec/selector/matchLabels"
    await scenario.kube.patch(
        INFERENCEPOOL,
        "chat-b",
        [{"op": "replace", "path": path, "value": selector}],
        scenario.namespace,
    )
    before = await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})
    await scenario.revise("chat", "2")
    await scenario.until_event("WaitingForReadyPods", "chat-b")
    after = await scenario.get(HTTPROUTE, "chat")
    assert after["metadata"]["generation"] == before["metadata"]["generation"]


@pytest.mark.parametrize(
    ("release", "reason", "says"),
    [
        pytest.param(
            foreign_release("empty"), "WaitingForReadyPods", "empty", id="pool-without-pods"
        ),
        pytest.param(
            foreign_release("nowhere"), "InvalidConfig", "nowhere", id="pool-that-does-not-exist"
        ),
        pytest.param(
            foreign_release("a-service"), "InvalidConfig", "a-service", id="name-of-another-kind"
        ),
        pytest.param(
            foreign_release("") | {"metadata": {"annotations": {DESTINATION_ANNOTATION: None}}},
            "InvalidConfig",
            DESTINATION_ANNOTATION,
            id="no-destination-at-all",
        ),
    ],
)
async def test_release_of_a_destination_that_can_not_be_used_writes_nothing(
    scenario: Scenario, release: Object, reason: str, says: str
) -> None:
    await foreign(scenario, "one")
    await scenario.apply(m.pool("empty", {"app": "nobody"}))
    await scenario.apply(m.service("a-service", {"app": "one"}))
    before = await scenario.until_weights("chat", {"one": 100})
    await scenario.revise("release", release)
    await scenario.until_event(reason, says)
    after = await scenario.get(HTTPROUTE, "chat")
    assert after["spec"] == before["spec"]


async def test_undo_to_a_pool_whose_content_has_changed_gets_no_weight(scenario: Scenario) -> None:
    """Plugin-walk §10: V1 is A, V2 is B, V3 is A with other content; V1 can't come back."""
    await foreign(scenario, "a", "b", identity="label:content=first")
    await to_the_end(scenario, "b", "label:content=first")
    await scenario.until_weights("chat", {"a": 0, "b": 100})
    # A's owner puts another model there.
    await scenario.apply(foreign_deployment("a", m.simulated_vllm("second"), "second"))
    await scenario.until_available("a")
    await to_the_end(scenario, "a", "label:content=second")
    await scenario.until_weights("chat", {"a": 100, "b": 0})
    await scenario.argo("undo", "release", "--to-revision=1")
    await scenario.until_event("Unhealthy", "503")
    await scenario.until_weights("chat", {"a": 100, "b": 0})


async def to_the_end(scenario: Scenario, pool: str, identity: str) -> None:
    await scenario.revise("release", foreign_release(pool, identity))
    await scenario.until_paused("release", 10)
    await scenario.argo("promote", "release", "--full")
    await scenario.until_healthy("release")
