"""A part that everything shares stops in the middle of a canary: nothing is lost, all goes on."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import psutil
import pytest

from inference_common.kube import ROLLOUT
from support.deployments import hash_addressed
from support.history import History
from support.scenario import TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.scenario import Scenario

pytestmark = pytest.mark.alone
FIFTY: dict[str, int | None] = {"chat-a": 50, "chat-b": 50}


async def to_fifty(scenario: Scenario) -> None:
    await hash_addressed(scenario)
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    await scenario.argo("promote", "chat")
    await scenario.until_paused("chat", 50)
    await scenario.until_weights("chat", FIFTY)


async def ends_well(scenario: Scenario) -> None:
    """The canary is promoted as if nothing had happened."""
    await scenario.argo("promote", "chat")
    await scenario.until_healthy("chat", timeout_s=180)
    await scenario.until_weights("chat", {"chat-a": 0, "chat-b": 100})


@asynccontextmanager
async def frozen(scenario: Scenario, name: str) -> AsyncIterator[None]:
    pid = scenario.cluster.signal(name, signal.SIGSTOP)
    try:
        yield
    finally:
        psutil.Process(pid).send_signal(signal.SIGCONT)


async def until_logged(scenario: Scenario, text: str) -> None:
    """Return once the controller has logged the text about this Rollout (no Event tells it)."""
    async with asyncio.timeout(TIMEOUT_S):
        while not any(  # noqa: ASYNC110 - a log can't be watched
            text in line and scenario.namespace in line
            for line in scenario.cluster.log("argo-rollouts").splitlines()
        ):
            await asyncio.sleep(0.5)


async def test_frozen_server_costs_an_error_per_call_and_nothing_else(scenario: Scenario) -> None:
    """The bridge gives up on each call in time: the controller's workers stay free."""
    await to_fifty(scenario)
    async with History(scenario) as history:
        async with frozen(scenario, "plugin"):
            await scenario.argo("promote", "chat")
            await until_logged(scenario, "did not answer UpdateHash within")
        await scenario.until_healthy("chat", timeout_s=180)
        await scenario.until_weights("chat", {"chat-a": 0, "chat-b": 100})
    assert history.unanswered() == []


async def test_killed_bridge_is_started_again_by_the_controller(scenario: Scenario) -> None:
    await to_fifty(scenario)
    controller = psutil.Process(scenario.cluster.pid("argo-rollouts"))
    [bridge] = controller.children()
    bridge.kill()
    await ends_well(scenario)
    assert [child.pid for child in controller.children()] != [bridge.pid]


async def test_controller_killed_at_fifty_goes_on_from_there(scenario: Scenario) -> None:
    await to_fifty(scenario)
    async with History(scenario) as history:
        scenario.cluster.signal("argo-rollouts", signal.SIGKILL)
        await ends_well(scenario)
    assert history.unanswered() == []
    # Nothing but the promotion moved the weights.
    assert history.weights("chat") == [FIFTY, {"chat-a": 0, "chat-b": 100}]


async def test_api_server_away_for_twenty_seconds_moves_no_weight(scenario: Scenario) -> None:
    await to_fifty(scenario)
    async with frozen(scenario, "kube-apiserver"):
        await asyncio.sleep(20)  # the scenario itself
    await scenario.until(
        ROLLOUT, "chat", lambda rollout: rollout is not None, what="an answer", timeout_s=120
    )
    await scenario.until_weights("chat", FIFTY)
    await ends_well(scenario)


async def test_abort_that_the_controller_is_too_frozen_to_see_is_carried_out(
    scenario: Scenario,
) -> None:
    await to_fifty(scenario)
    async with frozen(scenario, "argo-rollouts"):
        # Only the plugin is there to see it: it needs no call of the controller.
        await scenario.kube.patch(
            ROLLOUT,
            "chat",
            [{"op": "add", "path": "/status/abort", "value": True}],
            scenario.namespace,
            subresource="status",
        )
        await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})
