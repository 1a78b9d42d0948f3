"""`inference-rollouts analysis`: the analysis worker's command line."""

from __future__ import annotations

import gc
import sys
from pathlib import Path  # noqa: TC003 - typer reads it from the signature
from typing import Annotated

import typer

from inference_analysis.capture_command import capture

app = typer.Typer(
    name="analysis",
    help="Compare a canary with stable: pass, fail or inconclusive.",
    no_args_is_help=True,
)

EXIT_CODES = {"proceed": 0, "abort": 1, "pause": 3}
BAD_INPUT = 2
app.command()(capture)


@app.callback()
def analysis() -> None:
    """Compare a canary with stable: pass, fail or inconclusive."""


@app.command()
def evaluate(
    file: Annotated[
        Path, typer.Argument(help="Cells file (docs/statistics.md), or - for standard input.")
    ],
    json: Annotated[
        bool, typer.Option("--json", help="Print the whole verdict as JSON instead of five lines.")
    ] = False,
) -> None:
    """Take one look at a file of cells, without any network.

    Exit code 0: go on (passed, or weak evidence in mode guard); 1: abort (failed); 2: the file
    cannot be used; 3: pause (inconclusive). The same file gives the same bytes.
    """
    from inference_analysis import checking, reports, translating  # noqa: PLC0415 - help is fast
    from inference_analysis.errors import InputError  # noqa: PLC0415
    from inference_analysis.evaluation import evaluate as evaluated  # noqa: PLC0415

    gc.disable()  # one verdict, then the process ends: looking for cycles costs a third of the time
    try:
        document = checking.parse(
            sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        )
        evaluation = evaluated(
            translating.observations(document),
            translating.policy(document.policy),
            translating.look(document.look),
            translating.ledger(document.ledger),
            fingerprint=translating.fingerprint(document.policy),
        )
    except (InputError, OSError) as error:
        for line in str(error).splitlines():
            print(f"inference-rollouts analysis evaluate: {file}: {line}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(BAD_INPUT) from error
    finally:
        gc.enable()
    if json:
        sys.stdout.write(reports.rendered(reports.document(evaluation, document.rollout)))
    else:
        sys.stdout.write("\n".join(reports.lines(evaluation, document.rollout)) + "\n")
    raise typer.Exit(EXIT_CODES[evaluation.decision.action])
