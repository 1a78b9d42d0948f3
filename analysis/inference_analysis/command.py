"""`inference-rollouts analysis`: the analysis worker's command line."""

from __future__ import annotations

import typer

from inference_analysis.capture_command import capture
from inference_analysis.evaluate_command import evaluate

app = typer.Typer(
    name="analysis",
    help="Compare a canary with stable: pass, fail or inconclusive.",
    no_args_is_help=True,
)

app.command()(capture)
app.command()(evaluate)


@app.callback()
def analysis() -> None:
    """Compare a canary with stable: pass, fail or inconclusive."""
