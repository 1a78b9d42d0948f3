"""Whether canary and stable pods carry alike loads at a step's weight. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOW: Final = 0.7
HIGH: Final = 1.4
"""The default band of requests per canary pod / stable pod (docs/statistics.md)."""
LEAST_STABLE: Final = 3
_ALL: Final = 100


def problems(
    rollout: Mapping[str, Any], index: int, *, ttft: bool = True
) -> Iterator[tuple[str, bool]]:
    """(text, fatal) of what is wrong with the loads at the analysis in step ``index``.

    ``ttft``: whether pools of pods are compared by their time to the first token.
    """
    replicas = int(rollout["spec"].get("replicas", 1))
    canary = rollout["spec"]["strategy"]["canary"]
    weight, pods = _at(canary.get("steps") or [], index, replicas)
    stable = replicas
    if canary.get("dynamicStableScale"):
        stable = math.ceil(replicas * (_ALL - weight) / _ALL)
    if weight <= 0:
        yield "comes before any setWeight: the canary has no requests to look at", False
        return
    if weight >= _ALL or stable == 0:
        yield "looks at weight 100: stable has no requests to compare with. Look before", True
        return
    if stable < LEAST_STABLE:
        yield (
            (
                f"there are {stable} stable pods: fewer than {LEAST_STABLE} do not show how much "
                "pods differ by themselves, so the evidence is weak"
            ),
            False,
        )
    if pods == 0:
        yield "the canary has no pod at this weight (setCanaryScale)", True
        return
    ratio = (weight / pods) / ((_ALL - weight) / stable)
    if not LOW <= ratio <= HIGH:
        fitting = round(_ALL * pods / (pods + stable))
        less = ratio < LOW
        yield (
            (
                f"at weight {weight:g} a canary pod gets {ratio:.2f} times a stable pod's "
                f"requests, so it looks {'faster' if less else 'slower'} than it is. "
                f"setWeight: {fitting} gives {pods} canary and {stable} stable pods the same"
            ),
            False,
        )
    if ttft and pods != stable:
        yield _unequal(pods, stable, dynamic=bool(canary.get("dynamicStableScale"))), False


def _unequal(pods: int, stable: int, *, dynamic: bool) -> str:
    """Pools of different size are not quite alike at equal load per pod (docs/analysis.md)."""
    scale = "" if dynamic else f"setCanaryScale: {{replicas: {stable}}}, "
    word = "worse" if pods < stable else "better"
    return (
        f"{pods} canary and {stable} stable pods: a request finds an idle pod more often in the "
        f"larger pool, so TTFT of an identical version looks {word} (by up to 14 % with 2 and 4 "
        f"pods, 60 % busy). Pools of one size compare well ({scale}setWeight: 50); pods that are "
        "less busy differ less"
    )


def _at(steps: list[Mapping[str, Any]], index: int, replicas: int) -> tuple[float, int]:
    """Weight and canary pods at a step, as Argo Rollouts counts them with traffic routing."""
    weight = 0.0
    scale: Mapping[str, Any] = {}
    for step in steps[: index + 1]:
        weight = float(step.get("setWeight", weight))
        if "setCanaryScale" in step:
            scale = step["setCanaryScale"] or {}
    if scale.get("replicas") is not None:
        return weight, int(scale["replicas"])
    share = float(scale["weight"]) if scale.get("weight") is not None else weight
    return weight, math.ceil(replicas * share / _ALL)
