"""The three acts: a new base model to the end, a bad version taken back, a new LoRA adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inference_common.kube import HTTPROUTE, INFERENCEMODEL, ROLLOUT, PatchKind
from inference_common.names import DESTINATION_ANNOTATION
from support.demo.stage import Stage
from support.scenario import targets, weights
from support.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from support.demo.view import Row
    from support.scenario import Scenario

RATE: Final = 20.0
QWEN: Final = "Qwen-2.5-7B-Instruct"
DEEPSEEK: Final = "DeepSeek-R1-Distill-Qwen-7B"
BAD: Final = "DeepSeek-R1-Distill-Qwen-7B-int2"
V1: Final = "travel-helper-v1"
V2: Final = "travel-helper-v2"
_START_S: Final = 180.0


async def base_model(console: Console, scenario: Scenario) -> list[Row]:
    """Acts (a) and (b) on the Rollout of base-model-canary.yaml."""

    async def route_weights() -> Mapping[str, int | None]:
        return weights(await scenario.get(HTTPROUTE, "mymodel"))

    first = Stage(
        console,
        scenario,
        title=f"(a) base model: {QWEN} → {DEEPSEEK}, to the end by promote",
        versions=(QWEN, DEEPSEEK),
        weights=route_weights,
    )
    second = Stage(
        console,
        scenario,
        title=f"(b) a bad version, {BAD}: taken back by abort",
        versions=(DEEPSEEK, BAD),
        weights=route_weights,
    )
    async with first.shown():
        await first.apply_example("base-model-canary.yaml")
        for name in ("mymodel-a-picker", "mymodel-b-picker"):
            await first.wait(name, scenario.until_available(name))
        await first.wait("the first version", scenario.until_healthy("mymodel", _START_S))
        await scenario.until_accepted("mymodel")
        async with Traffic(await scenario.address(), model="mymodel", rate=RATE) as traffic:
            first.follow(traffic)
            await first.record("before", answers=50)
            await set_model(first, DEEPSEEK)
            for weight in (10, 50):
                await first.wait(
                    f"the canary at {weight} %",
                    scenario.until_paused("mymodel", weight, _START_S),
                )
                await scenario.until_accepted("mymodel")
                await first.record(f"setWeight {weight}")
                await first.argo("promote", "mymodel")
            await first.wait("full promotion", scenario.until_healthy("mymodel", _START_S))
            await scenario.until_accepted("mymodel")
            await first.record("promoted", answers=100)
    address = await scenario.address()
    traffic = Traffic(address, model="mymodel", rate=RATE)
    async with second.shown(), traffic:
        second.follow(traffic)
        await set_model(second, BAD)
        await second.wait("the canary at 10 %", scenario.until_paused("mymodel", 10, _START_S))
        await scenario.until_accepted("mymodel")
        await second.record("setWeight 10")
        await second.argo("abort", "mymodel")
        await second.wait("the abort", scenario.until_aborted("mymodel"))
        await scenario.until_canary_share("mymodel", 0)
        await scenario.until_accepted("mymodel")
        await second.record("aborted", answers=100)
    return [*first.rows, *second.rows]


async def lora(console: Console, scenario: Scenario) -> list[Row]:
    """Act (c) on the release Rollout of lora-canary.yaml."""

    async def model_weights() -> Mapping[str, int | None]:
        return targets(await scenario.get(INFERENCEMODEL, "travelhelper"))

    stage = Stage(
        console,
        scenario,
        title=f"(c) LoRA adapter: {V1} → {V2} on an InferenceModel",
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
    return stage.rows


async def set_model(stage: Stage, version: str) -> None:
    """Change the model that the Rollout serves, as an editor or a pipeline would."""
    stage.command(f"kubectl patch rollout mymodel --type json -p '[…args/0: /models/{version}]'")
    path = "/spec/template/spec/containers/0/args/0"
    change = [{"op": "replace", "path": path, "value": f"/models/{version}"}]
    await stage.scenario.kube.patch(
        ROLLOUT, "mymodel", change, stage.scenario.namespace, kind=PatchKind.JSON
    )
