"""The act of a version that answers 500 at once: the picker and the analysis work together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inference_common.kube import INFERENCEPOOL
from inference_common.names import SHARES_ANNOTATION
from inference_common.shares import decode
from support import analysed
from support.demo.judged import GATES, QWEN, busy, set_model, use_templates, verdict
from support.demo.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from rich.console import Console

    from support.scenario import Scenario

BROKEN: Final = "DeepSeek-R1-Distill-Qwen-7B-awq"
_START_S: Final = 180.0


async def ejected(console: Console, scenario: Scenario) -> list[Stage]:
    """Act (e) on the Rollout of shared-pool-canary.yaml."""

    async def shares() -> Mapping[str, int | None]:
        return _shares(await scenario.get(INFERENCEPOOL, "mymodel"))

    stage = Stage(
        console,
        scenario,
        title=f"(e) {BROKEN} answers 500, inside one pool: ejected, and aborted",
        versions=(QWEN, BROKEN),
        weights=shares,
    )
    async with stage.shown():
        await stage.apply_example("shared-pool-canary.yaml")
        settings = analysed.values(
            scenario,
            arms={"by": "versions"},
            look={"after": "30s"},
            windows={"warmUp": "8s"},
            policy={"gates": GATES},
        )
        await analysed.install(scenario, settings, name="versions")
        await use_templates(stage, ["versions"])
        await stage.wait("mymodel-picker", scenario.until_available("mymodel-picker"))
        await stage.wait("the first version", scenario.until_healthy("mymodel", _START_S))
        await scenario.until_accepted("mymodel")
        async with busy(await scenario.address()) as traffic:
            stage.follow(traffic)
            await stage.record("before", answers=50)
            traffic.mark()
            await set_model(stage, BROKEN, "--fault", "error_rate=1")
            phase = await verdict(stage, "Failed")
            await stage.record_harm(f"until {phase}", traffic.window())
            await stage.wait("the abort", scenario.until_aborted("mymodel"))
            await stage.wait("stable alone", _stable_alone(scenario))
            await stage.record("aborted", answers=100)
    return [stage]


def _shares(pool: Mapping[str, Any]) -> dict[str, int | None]:
    text = (pool["metadata"].get("annotations") or {}).get(SHARES_ANNOTATION)
    return dict(decode(text).weights) if text else {}


async def _stable_alone(scenario: Scenario) -> None:
    stable = (await scenario.hashes("mymodel"))["stable"]
    await scenario.until(
        INFERENCEPOOL,
        "mymodel",
        lambda pool: pool is not None and {k for k, v in _shares(pool).items() if v} == {stable},
        what="all requests on the stable version",
    )
