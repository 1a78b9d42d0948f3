"""A weight that somebody edits by hand in the middle of a canary, under each of the policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference_common.kube import HTTPROUTE, INFERENCEMODEL, PatchKind
from support.deployments import hash_addressed, lora_release, release_only

if TYPE_CHECKING:
    from support.scenario import Scenario


async def at_ten(scenario: Scenario, drift: str) -> None:
    await hash_addressed(scenario, config={"drift": drift})
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    await scenario.until_weights("chat", {"chat-a": 90, "chat-b": 10})


async def edit(scenario: Scenario, stable: int, canary: int) -> None:
    operations = [
        {"op": "replace", "path": f"/spec/rules/0/backendRefs/{at}/weight", "value": weight}
        for at, weight in enumerate((stable, canary))
    ]
    await scenario.kube.patch(HTTPROUTE, "chat", operations, scenario.namespace)


async def test_repair_puts_an_edited_weight_back_within_seconds(scenario: Scenario) -> None:
    await at_ten(scenario, "repair")
    await edit(scenario, 20, 80)
    await scenario.until_event("DriftRepaired", "commanded 10")
    await scenario.until_weights("chat", {"chat-a": 90, "chat-b": 10})


async def test_report_leaves_an_edited_weight_and_says_so(scenario: Scenario) -> None:
    await at_ten(scenario, "report")
    await edit(scenario, 20, 80)
    await scenario.until_event("DriftReported", "commanded 10")
    await scenario.reconcile("chat")
    await scenario.until_weights("chat", {"chat-a": 20, "chat-b": 80})
    # The next step is another command: it is carried out.
    await scenario.argo("promote", "chat")
    await scenario.until_paused("chat", 50)
    await scenario.until_weights("chat", {"chat-a": 50, "chat-b": 50})


async def test_adopt_takes_an_edited_weight_over_until_the_next_command(
    scenario: Scenario,
) -> None:
    await at_ten(scenario, "adopt")
    await edit(scenario, 70, 30)
    await scenario.until_event("DriftAdopted", "commanded 10")
    # Calls that repeat the old command change nothing.
    for _ in range(2):
        await scenario.reconcile("chat")
    await scenario.until_weights("chat", {"chat-a": 70, "chat-b": 30})
    await scenario.argo("promote", "chat")
    await scenario.until_paused("chat", 50)
    await scenario.until_weights("chat", {"chat-a": 50, "chat-b": 50})


async def test_abort_takes_back_an_adopted_weight(scenario: Scenario) -> None:
    await at_ten(scenario, "adopt")
    await edit(scenario, 70, 30)
    await scenario.until_event("DriftAdopted", "commanded 10")
    await scenario.argo("abort", "chat")
    await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})


async def test_edited_lora_target_is_put_back(scenario: Scenario) -> None:
    await release_only(scenario, "v1")
    await scenario.revise("travel-helper", lora_release("v2", noop=True))
    await scenario.until_paused("travel-helper", 10)
    await scenario.until_targets("loramodel", {"v1": 90, "v2": 10})
    targets = [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 9}]
    await scenario.kube.patch(
        INFERENCEMODEL,
        "loramodel",
        {"spec": {"targetModels": targets}},
        scenario.namespace,
        kind=PatchKind.MERGE,
    )
    await scenario.until_event("DriftRepaired", "v2: 9, commanded 10")
    await scenario.until_targets("loramodel", {"v1": 90, "v2": 10})


async def test_adopted_lora_targets_stay_until_the_next_command(scenario: Scenario) -> None:
    await release_only(scenario, "v1", drift="adopt")
    await scenario.revise("travel-helper", lora_release("v2", noop=True))
    await scenario.until_paused("travel-helper", 10)
    targets = [{"name": "v1", "weight": 70}, {"name": "v2", "weight": 30}]
    await scenario.kube.patch(
        INFERENCEMODEL,
        "loramodel",
        {"spec": {"targetModels": targets}},
        scenario.namespace,
        kind=PatchKind.MERGE,
    )
    await scenario.until_event("DriftAdopted", "v2: 30, commanded 10")
    await scenario.reconcile("travel-helper")
    await scenario.until_targets("loramodel", {"v1": 70, "v2": 30})
    await scenario.argo("promote", "travel-helper")
    await scenario.until_paused("travel-helper", 50)
    await scenario.until_targets("loramodel", {"v1": 50, "v2": 50})
