"""`inference-rollouts analysis calibrate`: A/A on stable history, before the first canary."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads it from the signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inference_analysis.evaluate_command import BAD_INPUT

if TYPE_CHECKING:
    from inference_analysis.calibrating import Calibration

TOO_MANY = 3
BUDGET = 0.05


def calibrate(
    files: Annotated[
        list[Path],
        typer.Argument(help="Cells files of stable history (`analysis capture --stable-only`)."),
    ],
    output: Annotated[
        Path | None, typer.Option(help="Write the priors file, for `evaluate --priors`.")
    ] = None,
    canary_pods: Annotated[int, typer.Option(min=1, help="Pods to pretend are a canary.")] = 1,
    minutes: Annotated[float, typer.Option(min=1.0, help="Length of an analysis.")] = 30.0,
    looks: Annotated[int, typer.Option(min=1, max=100, help="Looks of an analysis.")] = 5,
    splits: Annotated[int, typer.Option(min=10, max=100_000, help="Random splits.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the splits.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Measure how often identical pods would be failed, and what could be found.

    Stable pods are split at random into a pretended canary and the rest, in stretches of --minutes,
    and each split goes through the whole procedure with all its looks.

    Exit code 0: done; 2: the files cannot be used; 3: more false alarms than the budget of 5 %
    beyond chance. The same files and seed give the same bytes.
    """
    from inference_analysis import translating  # noqa: PLC0415 - help is fast
    from inference_analysis.calibrating import calibrated  # noqa: PLC0415
    from inference_analysis.checking import parse  # noqa: PLC0415
    from inference_analysis.errors import InputError  # noqa: PLC0415
    from inference_analysis.priors import written  # noqa: PLC0415

    try:
        documents = []
        for file in files:
            try:
                documents.append(parse(file.read_bytes(), stable_only=True))
            except InputError as error:
                raise InputError(*(f"{file}: {p}" for p in error.problems)) from error
        import numpy as np  # noqa: PLC0415

        found = calibrated(
            [translating.observations(each) for each in documents],
            translating.policy(documents[0].policy),
            canary_pods=canary_pods,
            minutes=minutes,
            looks=looks,
            splits=splits,
            rng=np.random.default_rng(seed),
            rollout="/".join(
                part for part in (documents[0].rollout.namespace, documents[0].rollout.name) if part
            ),
        )
        if output is not None:
            output.write_text(written(found.priors), encoding="utf-8")
    except (InputError, OSError) as error:
        for line in str(error).splitlines():
            print(f"inference-rollouts analysis calibrate: {line}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(BAD_INPUT) from error
    if json:
        from inference_analysis.reports import rendered  # noqa: PLC0415

        sys.stdout.write(rendered(_document(found)))
    else:
        _show(found, minutes, looks)
    raise typer.Exit(TOO_MANY if found.least() > BUDGET else 0)


def _document(found: Calibration) -> dict[str, Any]:
    return {
        "schema": "inference-rollouts.io/analysis-calibration/v1",
        "priors": found.priors.model_dump(mode="json", by_alias=True),
        "canaryPods": found.canary_pods,
        "stablePods": found.stable_pods,
        "blocks": found.blocks,
        "splits": found.splits,
        "falseAlarms": found.false_alarms,
        "falseAlarmsAtLeast": found.least(),
        "passes": found.passes / found.splits,
        "gates": [
            {
                "gate": gate.gate,
                "failed": gate.failed,
                "minimumDetectableEffect": gate.mde,
                "minimumDetectableEffectWithHistory": gate.mde_with_history,
                "scale": "log ratio" if gate.log_ratio else "difference",
            }
            for gate in found.gates
        ],
        "reasons": list(found.reasons),
    }


def _show(found: Calibration, minutes: float, looks: int) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from inference_analysis.wording import effect, share  # noqa: PLC0415

    console = Console(highlight=False)
    console.print(
        f"A/A: {found.splits} splits of {found.canary_pods} v {found.stable_pods} stable pods, "
        f"{found.blocks} stretches of {minutes:g} minutes, {looks} looks each",
        soft_wrap=True,
    )
    console.print(
        f"false alarms: {share(found.false_alarms)} ({found.failures} of {found.splits}; the "
        f"budget is {share(BUDGET)})",
        soft_wrap=True,
    )
    table = Table("gate", "false alarms", "finds", "finds with history", box=None)
    for gate in found.gates:
        scale = "log ratio" if gate.log_ratio else "difference"
        table.add_row(
            gate.gate,
            share(gate.failed),
            effect(gate.mde, scale),
            effect(gate.mde_with_history, scale),
        )
    console.print(table)
    table = Table("metric", "pods differ by", "learnt from", "one request's CV", box=None)
    for name, each in found.priors.metrics.items():
        table.add_row(name, share(each.sd), f"{each.pods} pods", f"{each.variation:.2f}")
    console.print(table)
    for reason in found.reasons:
        console.print(f"a false alarm said: {reason}", soft_wrap=True, markup=False)
    if found.least() > BUDGET:
        console.print(
            "More false alarms than the budget: stable pods differ by more than their spread "
            "explains. Look at the pods that the alarms name, lengthen --warm-up of the capture, "
            "or set harmMargin",
            soft_wrap=True,
        )
    if found.blocks == 1:
        console.print("One stretch only: capture a longer history for a figure to rely on")
