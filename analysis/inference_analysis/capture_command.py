"""`inference-rollouts analysis capture`: from Prometheus to a cells file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from inference_analysis.capture_options import CaptureOptions, with_capture_options

BAD_INPUT = 2
NO_ANSWER = 4


@with_capture_options
def capture(
    options: CaptureOptions,
    stable_only: Annotated[
        bool, typer.Option("--stable-only", help="Stable's history, for `calibrate`.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Cells file, or - for standard output.")] = Path("-"),
    look_id: Annotated[str, typer.Option(help="Name of the look, e.g. the AnalysisRun's.")] = "",
    fraction: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the planned pod-time that passed.")
    ] = 1.0,
    ledger: Annotated[
        Path | None, typer.Option(help="JSON file: the last verdict (evaluate --json).")
    ] = None,
) -> None:
    """Write what Prometheus has on both versions to a cells file, for `evaluate`.

    Exit code 0: written; 2: an option or the data cannot be used; 4: Prometheus was not reached,
    refused or answered in part only. Nothing is written in the last two cases. Remarks on the data
    go to standard error.
    """
    from inference_analysis.captures import captured  # noqa: PLC0415 - help is fast
    from inference_analysis.errors import InputError, PrometheusError  # noqa: PLC0415

    try:
        text, notes = captured(
            options, stable_only=stable_only, look_id=look_id, fraction=fraction, ledger=ledger
        )
        if str(output) == "-":
            sys.stdout.write(text)
        else:
            output.write_text(text)
    except PrometheusError as error:
        _say(str(error))
        raise typer.Exit(NO_ANSWER) from error
    except (InputError, OSError) as error:
        _say(str(error))
        raise typer.Exit(BAD_INPUT) from error
    for note in notes:
        _say(note)


def _say(text: str) -> None:
    for line in text.splitlines():
        print(f"inference-rollouts analysis capture: {line}", file=sys.stderr)  # noqa: T201
