"""``inference-rollouts plugin``: the traffic-router plugin's own commands."""

from __future__ import annotations

import typer

from inference_plugin.doctor.command import doctor
from inference_plugin.explain.command import explain
from inference_plugin.lint.command import lint
from inference_plugin.serve_command import serve

app = typer.Typer(help="The traffic-router plugin of Argo Rollouts.", no_args_is_help=True)
for command in (serve, explain, doctor, lint):
    app.command()(command)


@app.callback()
def root() -> None:
    """The traffic-router plugin of Argo Rollouts."""
