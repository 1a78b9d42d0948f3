"""`inference-rollouts analysis plan`: what a canary needs before there is one."""

from __future__ import annotations

import math
import sys
from pathlib import Path  # noqa: TC003 - typer reads it from the signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inference_analysis.evaluate_command import BAD_INPUT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference_analysis.sizing import Setup, Traffic

OUT_OF_REACH = 3
PASS_LEVEL = 0.04
"""Level of the first look that may say PASS: 80 % of .05."""
ASSUMED_SD = 0.05
ASSUMED_VARIATION = 1.0
SIZES = ((1, 3), (1, 9), (2, 8), (4, 16), (8, 24))


def plan(
    canary_pods: Annotated[int, typer.Option(min=1, help="Canary pods.")] = 1,
    stable_pods: Annotated[int, typer.Option(min=0, help="Stable pods.")] = 3,
    minutes: Annotated[float, typer.Option(min=1.0, help="Length of the analysis.")] = 30.0,
    effect: Annotated[
        float, typer.Option(min=0.1, max=1000.0, help="Slowdown to be found, in per cent.")
    ] = 10.0,
    looks: Annotated[int, typer.Option(min=1, max=100, help="Looks of the analysis.")] = 5,
    gates: Annotated[int, typer.Option(min=1, max=50, help="Primary gates.")] = 3,
    priors: Annotated[
        Path | None, typer.Option(help="Priors file of `calibrate`; else pods are assumed.")
    ] = None,
    pod_sd: Annotated[
        float, typer.Option(min=0.1, max=100.0, help="Without priors: pods differ by, per cent.")
    ] = 100.0 * ASSUMED_SD,
    requests: Annotated[
        float | None, typer.Option(min=0.001, help="Requests of a pod in a minute.")
    ] = None,
    errors: Annotated[
        float, typer.Option(min=0.01, max=100.0, help="Margin of the error share, in points.")
    ] = 0.5,
    quality: Annotated[
        float, typer.Option(min=0.1, max=100.0, help="Margin of answer quality, in points.")
    ] = 5.0,
    answers: Annotated[int, typer.Option(min=1, max=100, help="Answers to each prompt.")] = 5,
    adapters: Annotated[
        bool, typer.Option("--adapters", help="LoRA: canary and control share --canary-pods.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Say what a canary can show, and what it would take to show more.

    Exit code 0: the pods and minutes given find --effect in nine cases of ten on every metric; 2:
    an option or the priors file cannot be used; 3: they do not.
    """
    from inference_analysis import sizing  # noqa: PLC0415 - help is fast
    from inference_analysis.errors import InputError  # noqa: PLC0415

    try:
        traffic, share, remarks = _traffic(priors, pod_sd / 100.0, requests)
    except (InputError, OSError) as error:
        print(f"inference-rollouts analysis plan: {error}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(BAD_INPUT) from error
    setup = sizing.Setup(canary=canary_pods, stable=stable_pods, minutes=minutes, paired=adapters)
    level = sizing.final_level(0.04 / gates, looks)
    wanted = math.log1p(effect / 100.0)
    metrics = {name: _metric(setup, each, level, wanted, minutes) for name, each in traffic.items()}
    first = next(iter(traffic.values()))
    found: dict[str, Any] = {
        "schema": "inference-rollouts.io/analysis-plan/v1",
        "canaryPods": canary_pods,
        "stablePods": stable_pods,
        "adapters": adapters,
        "minutes": minutes,
        "looks": looks,
        "effect": effect / 100.0,
        "level": level,
        "metrics": metrics,
        "errorMinutes": sizing.error_minutes(errors / 100.0, share, setup, first, PASS_LEVEL),
        "prompts": sizing.prompts_needed(quality / 100.0, answers, PASS_LEVEL),
        "remarks": [*remarks, *_advice(setup, looks)],
    }
    if json:
        from inference_analysis.reports import rendered  # noqa: PLC0415

        sys.stdout.write(rendered(found))
    else:
        _show(found, errors=errors, quality=quality, answers=answers)
    enough = all(each["finds"] is not None and each["finds"] <= wanted for each in metrics.values())
    raise typer.Exit(0 if enough else OUT_OF_REACH)


def _traffic(
    priors: Path | None, sd: float, requests: float | None
) -> tuple[Mapping[str, Traffic], float, list[str]]:
    """What each metric's pods are like, the share of errors, and what is assumed."""
    from inference_analysis.errors import InputError  # noqa: PLC0415
    from inference_analysis.priors import read  # noqa: PLC0415
    from inference_analysis.sizing import Traffic  # noqa: PLC0415

    if priors is None:
        assumed = Traffic(sd=sd, variation=ASSUMED_VARIATION, per_minute=requests or 60.0)
        remark = (
            f"assumed: pods differ by {100.0 * sd:g} %, {assumed.per_minute:g} requests a pod and "
            "minute, .5 % errors. `analysis calibrate` measures it, --priors takes it"
        )
        return {"latency": assumed}, 0.005, [remark]
    learnt = read(priors)
    found = {
        name: Traffic(
            sd=each.sd,
            variation=each.variation,
            per_minute=requests or learnt.requests_per_pod_minute,
            learnt_pods=each.pods,
        )
        for name, each in learnt.metrics.items()
        if not name.endswith("_tokens")
    }
    if not found:
        raise InputError(f"--priors {priors}: no latency metric in it. Calibrate on more pods")
    return found, learnt.error_share, []


def _metric(
    setup: Setup, traffic: Traffic, level: float, wanted: float, minutes: float
) -> dict[str, Any]:
    from inference_analysis import sizing  # noqa: PLC0415

    pods = sizing.pods_needed(wanted, setup, traffic, level)
    spans = sorted({minutes / 2.0, minutes, 2.0 * minutes, 4.0 * minutes})
    sizes = [(setup.canary, setup.stable)]
    sizes += [(c, setup.stable) if setup.paired else (c, s) for c, s in SIZES]
    return {
        "finds": sizing.detectable(setup, traffic, level),
        "canaryPodsNeeded": None if pods is None else pods[0],
        "stablePodsNeeded": None if pods is None or setup.paired else pods[1],
        "minutesNeeded": sizing.minutes_needed(wanted, setup, traffic, level),
        "table": [
            {
                "canaryPods": canary,
                "stablePods": stable,
                "finds": {
                    f"{span:g}": sizing.detectable(
                        sizing.Setup(
                            canary=canary, stable=stable, minutes=span, paired=setup.paired
                        ),
                        traffic,
                        level,
                    )
                    for span in spans
                },
            }
            for canary, stable in sorted(set(sizes))
        ],
    }


def _advice(setup: Setup, looks: int) -> list[str]:
    from inference_analysis.comparisons import LEAST_STABLE_PODS  # noqa: PLC0415
    from inference_analysis.sizing import LEAST_PAIRS, MOST_LOOKS, WINDOW_MINUTES  # noqa: PLC0415

    if setup.paired and setup.canary < LEAST_PAIRS:
        few = "" if looks <= MOST_LOOKS else f", not {looks}"
        text = (
            f"fewer than {LEAST_PAIRS} pods serve both adapters: they are compared window by "
            f"window, which takes at least {WINDOW_MINUTES} minutes and at most {MOST_LOOKS} "
            f"looks{few}"
        )
        return [text]
    if not setup.paired and setup.stable < LEAST_STABLE_PODS:
        text = (
            f"fewer than {LEAST_STABLE_PODS} stable pods: nothing can be said about latency. Only "
            "gross errors and absolute limits protect"
        )
        return [text]
    return []


def _show(found: Mapping[str, Any], *, errors: float, quality: float, answers: int) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = Console(highlight=False)
    for remark in found["remarks"]:
        console.print(remark, soft_wrap=True)
    pods = (
        f"{found['canaryPods']} pods"
        if found["adapters"]
        else (f"{found['canaryPods']} v {found['stablePods']} pods")
    )
    for name, metric in found["metrics"].items():
        console.print(
            f"\n{name}: {pods} in {found['minutes']:g} minutes find {_percent(metric['finds'])} in "
            "nine cases of ten",
            soft_wrap=True,
        )
        console.print(f"to find +{100.0 * found['effect']:g} %: {_ways(metric)}", soft_wrap=True)
        spans = list(metric["table"][0]["finds"])
        table = Table("pods", *(f"{span} min" for span in spans), box=None)
        for row in metric["table"]:
            size = f"{row['canaryPods']}" + ("" if found["adapters"] else f" v {row['stablePods']}")
            table.add_row(size, *(_percent(row["finds"][span]) for span in spans))
        console.print(table)
    console.print(
        f"\nerrors: {math.ceil(found['errorMinutes'])} minutes to show at most {errors:g} points "
        "more of them",
        soft_wrap=True,
    )
    console.print(
        f"quality: {found['prompts']} prompts of {answers} answers to show at most {quality:g} "
        "points less",
        soft_wrap=True,
    )


def _ways(metric: Mapping[str, Any]) -> str:
    ways = []
    if metric["canaryPodsNeeded"] is not None:
        stable = metric["stablePodsNeeded"]
        with_stable = "" if stable is None else f" v {stable}"
        ways.append(f"{metric['canaryPodsNeeded']}{with_stable} pods in the same time")
    if metric["minutesNeeded"] is not None:
        ways.append(f"{metric['minutesNeeded']:g} minutes with these pods")
    return ", or ".join(ways) or "out of reach; steadier pods or a wider margin are needed"


def _percent(log_ratio: float) -> str:
    if log_ratio > math.log(11.0):
        return "nothing"
    return f"+{100.0 * math.expm1(log_ratio):.1f} %"
