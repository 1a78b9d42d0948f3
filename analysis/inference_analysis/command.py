"""`inference-rollouts analysis`: the analysis worker's command line."""

from __future__ import annotations

import typer

from inference_analysis.argo.acknowledge_command import acknowledge
from inference_analysis.argo.history_command import history
from inference_analysis.argo.lint_command import lint
from inference_analysis.argo.run_command import run
from inference_analysis.argo.serve_command import serve
from inference_analysis.argo.template_command import template
from inference_analysis.calibrate_command import calibrate
from inference_analysis.capture_command import capture
from inference_analysis.evaluate_command import evaluate
from inference_analysis.plan_command import plan
from inference_analysis.probe_command import probe
from inference_analysis.prompts_command import prompts_app
from inference_analysis.replay_command import replay

app = typer.Typer(
    name="analysis",
    help="Compare a canary with stable: pass, fail or inconclusive.",
    no_args_is_help=True,
)

app.command()(capture)
app.command()(evaluate)
app.command()(probe)
app.add_typer(prompts_app)
app.command()(replay)
app.command()(calibrate)
app.command()(plan)
app.command()(acknowledge)
app.command()(history)
app.command()(lint)
app.command()(run)
app.command()(serve)
app.command()(template)


@app.callback()
def analysis() -> None:
    """Compare a canary with stable: pass, fail or inconclusive."""
