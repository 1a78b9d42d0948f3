"""The acts that the analysis decides: a good version, two bad ones, one with little traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import HTTPROUTE, ROLLOUT, PatchKind
from support import analysed
from support.demo.stage import Stage
from support.manifests import MODEL_PORT
from support.scenario import weights
from support.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from support.scenario import Scenario

RATE: Final = 20.0
WEIGHT: Final = 50
PODS: Final = 4
LOOK_AFTER: Final = "30s"
BRIEFLY: Final = "12s"
GATES: Final = [
    {"metric": "ttft", "statistic": "mean"},
    {"metric": "tpot", "statistic": "mean"},
    # Half a minute of requests cannot show less than this.
    {"metric": "errors", "statistic": "rate", "margin": 0.05},
]
QWEN: Final = "Qwen-2.5-7B-Instruct"
DEEPSEEK: Final = "DeepSeek-R1-Distill-Qwen-7B"
BAD: Final = "DeepSeek-R1-Distill-Qwen-7B-int2"
WRONG: Final = "DeepSeek-R1-Distill-Qwen-7B-v2"
NEXT: Final = "DeepSeek-R1-0528-Qwen3-8B"
_START_S: Final = 180.0


async def judged(console: Console, scenario: Scenario) -> list[Stage]:
    """Acts (a) to (d) on the Rollout of base-model-canary.yaml, with the analysis as its steps."""

    async def route_weights() -> Mapping[str, int | None]:
        return weights(await scenario.get(HTTPROUTE, "mymodel"))

    good, slow, wrong, quiet = (
        Stage(console, scenario, title=title, versions=versions, weights=route_weights)
        for title, versions in (
            (f"(a) {QWEN} → {DEEPSEEK}: promoted with no hand on it", (QWEN, DEEPSEEK)),
            (f"(b) {BAD}, 20 % slower: aborted", (DEEPSEEK, BAD)),
            (f"(c) {WRONG}, as fast but wrong: aborted", (DEEPSEEK, WRONG)),
            (f"(d) {NEXT} with too little traffic: guard goes on, prove asks", (DEEPSEEK, NEXT)),
        )
    )
    async with good.shown():
        await good.apply_example("base-model-canary.yaml")
        await analyse(good, scenario)
        for name in ("mymodel-a-picker", "mymodel-b-picker"):
            await good.wait(name, scenario.until_available(name))
        await good.wait("the first version", scenario.until_healthy("mymodel", _START_S))
        await scenario.until_accepted("mymodel")
        async with busy(await scenario.address()) as traffic:
            good.follow(traffic)
            await good.record("before", answers=50)
            await set_model(good, DEEPSEEK)
            await decided(good, "Successful")
            await good.wait("full promotion", scenario.until_healthy("mymodel", _START_S))
            await scenario.until_accepted("mymodel")
            await good.record("promoted", answers=100)
    await refused(slow, BAD, "slow_factor=1.2")
    await use_templates(wrong, ["answers"])
    await refused(wrong, WRONG, "wrong_share=0.33")
    address = await scenario.address()
    async with quiet.shown(), Traffic(address, model="mymodel", rate=1, max_tokens=4) as traffic:
        quiet.follow(traffic)
        await use_templates(quiet, ["brief-guard", "brief-prove"])
        await set_model(quiet, NEXT)
        await decided(quiet, "Successful", answers=3)
        await decided(quiet, "Inconclusive", answers=3)
        await quiet.wait("the pause", scenario.until_paused("mymodel", WEIGHT))
    return [good, slow, wrong, quiet]


async def refused(stage: Stage, version: str, fault: str) -> None:
    """A version that the analysis aborts."""
    scenario = stage.scenario
    async with stage.shown(), busy(await scenario.address()) as traffic:
        stage.follow(traffic)
        await set_model(stage, version, "--fault", fault)
        await decided(stage, "Failed")
        await stage.wait("the abort", scenario.until_aborted("mymodel"))
        await scenario.until_canary_share("mymodel", 0)
        await scenario.until_accepted("mymodel")
        await stage.record("aborted", answers=100)


def busy(address: str) -> Traffic:
    """Short answers: what a verdict needs is many requests."""
    return Traffic(address, model="mymodel", rate=RATE, max_tokens=analysed.MAX_TOKENS)


async def analyse(stage: Stage, scenario: Scenario) -> None:
    """Install the templates, and make one of them the Rollout's step."""
    quality = {"model": "mymodel", "podPort": MODEL_PORT, "rate": 20}
    scored = {"metric": "quality", "statistic": "score"}
    brief = {"look": {"after": BRIEFLY}}
    for name, over in (
        ("guard", {"policy": {"gates": GATES}}),
        ("answers", {"quality": quality, "policy": {"gates": [*GATES, scored]}}),
        ("brief-guard", brief | {"policy": {"gates": GATES}}),
        ("brief-prove", brief | {"policy": {"mode": "prove", "gates": GATES}}),
    ):
        stage.command(
            f"inference-rollouts analysis template --name {name} --config {name}.yaml "
            "| kubectl apply -f -"
        )
        quick = {"look": {"after": LOOK_AFTER}, "windows": {"warmUp": "8s"}}
        await analysed.install(scenario, analysed.values(scenario, **(quick | over)), name=name)
    await use_templates(stage, ["guard"])


async def use_templates(stage: Stage, names: Sequence[str]) -> None:
    """As many canary pods as stable ones with half of the requests, then the analyses.

    Pools of one size: in a larger one a request finds an idle pod more often.
    """
    stage.command(
        f"kubectl patch rollout mymodel -p '… replicas: {PODS}, steps: "
        f"[setCanaryScale: {PODS}, setWeight: {WEIGHT}, "
        + ", ".join(f"analysis: {name}" for name in names)
        + "]'"
    )
    steps: list[dict[str, Any]] = [
        {"setCanaryScale": {"replicas": PODS}},
        {"setWeight": WEIGHT},
        *({"analysis": analysed.analysis_of(name)} for name in names),
    ]
    change = {"spec": {"replicas": PODS, "strategy": {"canary": {"steps": steps}}}}
    await stage.scenario.kube.patch(
        ROLLOUT, "mymodel", change, stage.scenario.namespace, kind=PatchKind.MERGE
    )


async def decided(stage: Stage, phase: str, answers: int = 60) -> None:
    """Wait for the next AnalysisRun's end, show what it said, and collect some answers."""
    await stage.record(await verdict(stage, phase), answers=answers)


async def verdict(stage: Stage, phase: str) -> str:
    """Wait for the next AnalysisRun's end, and show what it said; its phase."""
    before = len(await analysed.ended(stage.scenario))
    ended = analysed.until_ended(stage.scenario, before + 1, _START_S)
    await stage.wait(f"the analysis; {phase} is expected", ended)
    said = await analysed.said(stage.scenario)
    found = analysed.phases(await analysed.ended(stage.scenario))[before]
    stage.verdict(found, said[-1], expected=phase)
    return found


async def set_model(stage: Stage, version: str, *extra: str) -> None:
    """Change the model that the Rollout serves, as an editor or a pipeline would."""
    args = [f"/models/{version}", "--served-model-name", "mymodel", "--port", "8000", *extra]
    shown = "".join(f", {word}" for word in extra)
    stage.command(
        f"kubectl patch rollout mymodel --type json -p '[…args: [/models/{version}, …{shown}]]'"
    )
    path = "/spec/template/spec/containers/0/args"
    change = [{"op": "replace", "path": path, "value": args}]
    await stage.scenario.kube.patch(
        ROLLOUT, "mymodel", change, stage.scenario.namespace, kind=PatchKind.JSON
    )
