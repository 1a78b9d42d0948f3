"""`inference-rollouts analysis`: the analysis worker's command line."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="analysis",
    help="Compare a canary with stable: pass, fail or inconclusive.",
    no_args_is_help=True,
)


@app.callback()
def analysis() -> None:
    """Compare a canary with stable: pass, fail or inconclusive."""
