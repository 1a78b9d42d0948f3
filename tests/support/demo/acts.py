"""The act that a person plays: a new LoRA adapter, promoted by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inference_common.kube import INFERENCEMODEL
from inference_common.names import DESTINATION_ANNOTATION
from support.demo.stage import Stage
from support.scenario import targets
from support.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from support.scenario import Scenario

RATE: Final = 20.0
V1: Final = "travel-helper-v1"
V2: Final = "travel-helper-v2"
_START_S: Final = 180.0


async def lora(console: Console, scenario: Scenario) -> list[Stage]:
    """Act (f) on the release Rollout of lora-canary.yaml."""

    async def model_weights() -> Mapping[str, int | None]:
        return targets(await scenario.get(INFERENCEMODEL, "travelhelper"))

    stage = Stage(
        console,
        scenario,
        title=f"(f) LoRA adapter: {V1} → {V2} on an InferenceModel",
        versions=(V1, V2),
        weights=model_weights,
    )
    async with stage.shown():
        await stage.apply_example("lora-canary.yaml")
        for name in ("lora", "lora-picker"):
            await stage.wait(name, scenario.until_available(name))
        await stage.wait("the first adapter", scenario.until_healthy("travel-helper", _START_S))
        await scenario.until_accepted("lora")
        async with Traffic(await scenario.address(), model="travelhelper", rate=RATE) as traffic:
            stage.follow(traffic)
            await stage.record("before", answers=50)
            annotation = f'{{"metadata":{{"annotations":{{"{DESTINATION_ANNOTATION}":"{V2}"}}}}}}'
            stage.command(
                "kubectl patch rollout travel-helper --type merge "
                f'-p \'{{"spec":{{"template":{annotation}}}}}\''
            )
            await scenario.revise(
                "travel-helper", {"metadata": {"annotations": {DESTINATION_ANNOTATION: V2}}}
            )
            for weight in (10, 50):
                await stage.wait(
                    f"the adapter at {weight} %",
                    scenario.until_paused("travel-helper", weight, _START_S),
                )
                await stage.record(f"setWeight {weight}")
                await stage.argo("promote", "travel-helper")
            await stage.wait("full promotion", scenario.until_healthy("travel-helper", _START_S))
            await stage.record("promoted", answers=100)
    return [stage]
